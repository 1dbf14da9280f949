/** The part of a command tree that completion needs; commander's `Command` fits. */
export interface CommandNode {
  name(): string;
  description(): string;
  readonly commands: readonly CommandNode[];
  readonly options: readonly {
    readonly long?: string | undefined;
    readonly description: string;
    /** Whether the option takes a value. */
    readonly required: boolean;
    readonly optional: boolean;
  }[];
}

export const SHELLS = ['bash', 'zsh', 'fish'] as const;
export type Shell = (typeof SHELLS)[number];

/** A command by its full name, `bunkms key create`, and what may follow it. */
interface Place {
  readonly path: string;
  readonly commands: readonly Offer[];
  readonly options: readonly (Offer & { readonly takesValue: boolean })[];
}

interface Offer {
  readonly word: string;
  readonly description: string;
}

/** A script that completes commands and options in a shell, and otherwise files. */
export function completionScript(shell: Shell, program: CommandNode): string {
  const places = placesOf(program, program.name());
  switch (shell) {
    case 'bash':
      return bash(program.name(), places);
    case 'zsh':
      return zsh(program.name(), places);
    case 'fish':
      return fish(program.name(), places);
  }
}

function placesOf(command: CommandNode, path: string): Place[] {
  const options = command.options.flatMap(({ long, description, required, optional }) =>
    long === undefined ? [] : [{ word: long, description, takesValue: required || optional }],
  );
  return [
    {
      path,
      commands: command.commands.map((one) => ({ word: one.name(), description: one.description() })),
      options: [...options, { word: '--help', description: 'print help', takesValue: false }],
    },
    ...command.commands.flatMap((one) => placesOf(one, `${path} ${one.name()}`)),
  ];
}

function bash(name: string, places: readonly Place[]): string {
  return `# bash completion of ${name}: source <(${name} completion bash)
_${name}() {
  local current=\${COMP_WORDS[COMP_CWORD]} at=${name} commands= options= i
  for ((i = 1; i < COMP_CWORD; i++)); do
    case "$at \${COMP_WORDS[i]}" in
      ${pathsOf(places)}) at="$at \${COMP_WORDS[i]}" ;;
    esac
  done
  case $at in
${places.map(({ path, commands, options }) => `    '${path}') commands='${wordsOf(commands)}' options='${wordsOf(options)}' ;;`).join('\n')}
  esac
  if [[ $current == -* ]]; then
    COMPREPLY=($(compgen -W "$options" -- "$current"))
  else
    COMPREPLY=($(compgen -W "$commands" -- "$current"))
  fi
}
complete -o bashdefault -o default -F _${name} ${name}
`;
}

function zsh(name: string, places: readonly Place[]): string {
  const item = ({ word, description }: Offer) => quoted(`${word}:${description.replaceAll(':', '\\:')}`);
  const items = (offers: readonly Offer[]) => offers.map(item).join(' ');
  return `#compdef ${name}
# zsh completion of ${name}: source <(${name} completion zsh)
_${name}() {
  local at=${name} word
  local -a offered
  for word in "\${(@)words[2,CURRENT-1]}"; do
    case "$at $word" in
      (${pathsOf(places)}) at="$at $word" ;;
    esac
  done
  if [[ $PREFIX == -* ]]; then
    case $at in
${places.map(({ path, options }) => `      ('${path}') offered=(${items(options)}) ;;`).join('\n')}
    esac
    _describe -o option offered
  else
    case $at in
${places
  .filter(({ commands }) => commands.length > 0)
  .map(({ path, commands }) => `      ('${path}') offered=(${items(commands)}) ;;`)
  .join('\n')}
    esac
    if (( $#offered )); then _describe command offered; else _files; fi
  fi
}
if [[ $funcstack[1] == _${name} ]]; then _${name} "$@"; else compdef _${name} ${name}; fi
`;
}

function fish(name: string, places: readonly Place[]): string {
  const lines = places.flatMap(({ path, commands, options }) => {
    const here = `complete -c ${name} -n ${quoted(`__${name}_at ${path}`)}`;
    return [
      ...commands.map(({ word, description }) => `${here} -f -a ${word} -d ${quoted(description)}`),
      ...options.map(
        ({ word, description, takesValue }) =>
          `${here} -l ${word.slice(2)}${takesValue ? ' -r' : ''} -d ${quoted(description)}`,
      ),
    ];
  });
  return `# fish completion of ${name}: ${name} completion fish | source
function __${name}_at
  set -l at ${name}
  for word in (commandline -opc)[2..-1]
    switch "$at $word"
      case ${places
        .slice(1)
        .map(({ path }) => quoted(path))
        .join(' ')}
        set at "$at $word"
    end
  end
  test "$at" = "$argv"
end
${lines.join('\n')}
`;
}

function wordsOf(offers: readonly Offer[]): string {
  return offers.map(({ word }) => word).join(' ');
}

/** All commands except the program itself, as a pattern of `case`. */
function pathsOf(places: readonly Place[]): string {
  return places
    .slice(1)
    .map(({ path }) => `'${path}'`)
    .join(' | ');
}

/** In single quotes. All three shells read apostrophes that are outside the quotes and escaped. */
function quoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
