import { type CommandUnknownOpts, Option } from '@commander-js/extra-typings';

export const SHELLS = ['bash', 'zsh', 'fish'] as const;
export type Shell = (typeof SHELLS)[number];

/** A command by its full name, `bunkms key create`, and the words that may follow it. */
interface WordPosition {
  readonly path: string;
  readonly commands: readonly CommandUnknownOpts[];
  readonly options: readonly Option[];
}

/** A script that completes commands and options in a shell, and otherwise files. */
export function completionScript(shell: Shell, program: CommandUnknownOpts): string {
  const name = program.name();
  const places = placesOf(program, name);
  const script = shell === 'fish' ? fish(name, places) : bash(name, places);
  if (shell !== 'zsh') return script;
  // In a folder of `fpath`, zsh reads it as the body of the function at the first Tab.
  return `#compdef ${name}
autoload -U +X bashcompinit && bashcompinit
${script}if [[ $funcstack[1] == _${name} ]]; then _bash_complete -o bashdefault -o default -F _${name}; fi
`;
}

function placesOf(command: CommandUnknownOpts, path: string): WordPosition[] {
  const help = new Option('--help', 'print help');
  return [
    { path, commands: command.commands, options: [...command.options, help] },
    ...command.commands.flatMap((one) => placesOf(one, `${path} ${one.name()}`)),
  ];
}

function bash(name: string, places: readonly WordPosition[]): string {
  const cases = places.map(({ path, commands, options }) => {
    const words = commands.map((one) => one.name()).join(' ');
    return `    '${path}') commands='${words}' options='${options.map(({ long }) => long).join(' ')}' ;;`;
  });
  return `_${name}() {
  local current=\${COMP_WORDS[COMP_CWORD]} at=${name} commands= options= i
  for ((i = 1; i < COMP_CWORD; i++)); do
    case "$at \${COMP_WORDS[i]}" in
      ${subcommandsOf(places).join(' | ')}) at="$at \${COMP_WORDS[i]}" ;;
    esac
  done
  case $at in
${cases.join('\n')}
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

function fish(name: string, places: readonly WordPosition[]): string {
  const lines = places.flatMap(({ path, commands, options }) => {
    const here = `complete -c ${name} -n ${quoted(`__${name}_at ${path}`)}`;
    return [
      ...commands.map((one) => `${here} -f -a ${one.name()} -d ${quoted(one.description())}`),
      ...options.map(({ long, description, required }) =>
        [here, `-l ${long?.slice(2)}`, ...(required ? ['-r'] : []), `-d ${quoted(description)}`].join(' '),
      ),
    ];
  });
  return `function __${name}_at
  set -l at ${name}
  for word in (commandline -opc)[2..-1]
    switch "$at $word"
      case ${subcommandsOf(places).join(' ')}
        set at "$at $word"
    end
  end
  test "$at" = "$argv"
end
${lines.join('\n')}
`;
}

/** All commands except the program itself, as patterns of a case. */
function subcommandsOf(places: readonly WordPosition[]): string[] {
  return places.slice(1).map(({ path }) => quoted(path));
}

/** In single quotes. The shells read apostrophes that are outside the quotes and escaped. */
function quoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
