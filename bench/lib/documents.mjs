// Documents, their paths, and waiting for them.

import { request } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { run } from './load.mjs';
import { usage } from './processes.mjs';

/** Documents of the projects for hot reads. */
export const HOT_DOCUMENTS = 1_000;

/** PUTs documents d1 to d<count>. */
export async function fill({ directory, token }, server, project, count, body) {
  const put = { method: 'PUT', prefix: `${documents(project)[0]}/d`, count, body, token };
  // The first request creates the project, so that the others do not all wait for that.
  await run(directory, { ...put, url: server.url, count: 1, connections: 1, seconds: 30 });
  if (count > 1)
    await run(directory, { ...put, url: server.url, connections: Math.min(64, count), seconds: 900 });
}

/** Waits until projects have at least `count` document files. @returns milliseconds. */
export async function filesWritten(installation, projects, count) {
  const begun = performance.now();
  while ([projects].flat().reduce((sum, project) => sum + installation.files(project), 0) < count) {
    if (performance.now() - begun > 300_000) throw new Error(`the files of ${projects} are not written`);
    await sleep(100);
  }
  return performance.now() - begun;
}

/** Waits until a process is nearly idle. */
export async function quiet({ pid }) {
  for (let tries = 0; tries < 100; tries++) {
    const before = usage(pid).cpuSeconds;
    await sleep(300);
    if (usage(pid).cpuSeconds - before <= 0.02) return;
  }
}

export function timedGet(url, path, token) {
  const begun = performance.now();
  return new Promise((resolve, reject) => {
    request(`${url}${path}`, { headers: { authorization: `Bearer ${token}` }, agent: false }, (response) => {
      response.resume();
      response.on('end', () =>
        response.statusCode === 200
          ? resolve(performance.now() - begun)
          : reject(new Error(`GET ${path}: ${response.statusCode}`)),
      );
    })
      .on('error', reject)
      .end();
  });
}

export function documents(project) {
  return [`/v1/projects/${project}/collections/notes/documents`];
}

export function hotPaths(project, count = HOT_DOCUMENTS) {
  return Array.from({ length: count }, (_, at) => `${documents(project)[0]}/d${at + 1}`);
}

/** A JSON document of exactly this size, with members of several types. */
export function documentOf(bytes) {
  const text = 'Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor incididunt. ';
  const members = {
    title: 'A document of the benchmark',
    author: { name: 'Ada Lovelace', email: 'ada@example.org', verified: true },
    tags: ['notes', 'draft', 'benchmark', '2026'],
    priority: 3,
    score: 0.87,
    updated_by: null,
    text: '',
  };
  const rest = bytes - JSON.stringify(members).length;
  return Buffer.from(
    JSON.stringify({ ...members, text: text.repeat(Math.ceil(rest / text.length)).slice(0, rest) }),
  );
}

/** The body of a batch that creates `count` documents with this text. */
export function batchOf(document, count) {
  const operation = `{"op":"create","collection":"notes","document":${document}}`;
  return Buffer.from(`{"operations":[${Array(count).fill(operation).join(',')}]}`);
}
