/** The members of an object whose values are not undefined. */
export type Defined<T> = { [Name in keyof T]?: Exclude<T[Name], undefined> };

/** Leaves out undefined members, because an optional member is either absent or has a value. */
export function defined<T extends object>(members: T): Defined<T> {
  return Object.fromEntries(Object.entries(members).filter(([, value]) => value !== undefined)) as Defined<T>;
}
