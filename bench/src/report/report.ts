import { find, type Part, type Results, type Row, subjects, variants } from '../results.ts';
import { difference, quotient, type Series } from '../series.ts';
import { descriptions, type TargetName } from '../targets/catalogue.ts';
import { figures } from './figures.ts';
import { growth } from './growth.ts';
import { cell, number, table } from './markdown.ts';

/** The whole report in Markdown. `picture` is the file that it shows. */
export function report(results: Results, picture: string): string {
  const { rows } = results;
  const measured = (part: Part) => rows.some((row) => row.part === part);
  const sections = [
    head(results),
    asked(rows),
    ...(measured('unary') || measured('stream') ? [`![CPU per request and per streamed chunk](${picture})`] : []),
    ...(measured('unary') ? [unary(rows)] : []),
    ...(measured('stream') ? [stream(rows)] : []),
    ...(measured('rest') ? [rest(rows)] : []),
    ...(measured('memory') ? [memory(rows)] : []),
    ...(measured('growth') ? [growth(rows)] : []),
    errors(results),
  ];
  return `${sections.join('\n\n')}\n`;
}

function head({ takenAt, commit, plan, seconds, machine, versions }: Results): string {
  const { cpu, cores, memoryGb, kernel, loadBefore, loadAfter, stolen } = machine;
  const programs = Object.entries(versions).map(([name, version]) => `${name} ${version}`);
  const load = `load average ${number(loadBefore)} before, ${number(loadAfter)} after`;
  return [
    '# Benchmark',
    '',
    `Commit ${commit}, ${takenAt.slice(0, 16).replace('T', ' ')} UTC, a ${plan} run of ${Math.round(seconds / 60)} min.`,
    `Machine: ${cores} × ${cpu}, ${memoryGb} GB, ${kernel}; ${load}; ${number(stolen * 100)} % of the CPU time stolen.`,
    `${programs.join(', ')}.`,
    '',
    'Cells are medians over the rounds (lowest–highest). How each is measured: [README](../README.md).',
  ].join('\n');
}

function asked(rows: readonly Row[]): string {
  const lines = figures(rows).map(({ name, limit, unit, measured }) => {
    const withUnit = (text: string) => (unit === '' ? text : `${text} ${unit}`);
    const reached = measured === undefined ? '-' : measured.median <= limit ? 'yes' : '**no**';
    return [name, `≤ ${withUnit(String(limit))}`, measured ? withUnit(cell(measured)) : 'not measured', reached];
  });
  return `## Asked and measured\n\n${table(['figure', 'asked', 'measured', 'reached'], lines)}`;
}

function unary(rows: readonly Row[]): string {
  const clients = variants(rows, 'unary');
  const head = (what: string) => [what, ...clients.map((count) => `${count} ${count === '1' ? 'client' : 'clients'}`)];
  const targets = subjects(rows, 'unary');
  const of = (
    measure: string,
    names: readonly string[],
    combine?: (own: Series, count: string) => Series | undefined,
  ) =>
    names.map((name) => [
      name,
      ...clients.map((count) => {
        const own = find(rows, ['unary', name, count, measure]);
        return cell(own && combine ? combine(own, count) : own);
      }),
    ]);
  const proxies = targets.filter((name) => name !== 'direct');
  const ratio = (own: Series, count: string) => {
    const nginx = find(rows, ['unary', 'nginx', count, 'cpuMicros']);
    return nginx && quotient(own, nginx);
  };
  const overDirect = (measure: string) => (own: Series, count: string) => {
    const direct = find(rows, ['unary', 'direct', count, measure]);
    return direct && difference(own, direct);
  };
  const services = ['ingress', 'router', 'nats'].map((process) => [
    `CPU µs, ${process}`,
    ...clients.map((count) => cell(find(rows, ['unary', 'services', count, `cpuMicros.${process}`]))),
  ]);
  const messages = clients.map((count) => cell(find(rows, ['unary', 'services', count, 'busMessages'])));
  return [
    '## One answer a request',
    '',
    table(
      ['target', 'what it is'],
      targets.map((name) => [name, descriptions[name as TargetName] ?? '']),
    ),
    '',
    table(head('CPU µs per request'), of('cpuMicros', proxies)),
    '',
    table(head('÷ nginx'), of('cpuMicros', proxies, ratio)),
    '',
    table(head('services, per request'), [...services, ['messages on the bus', ...messages]]),
    '',
    table(head('median latency added, ms'), of('p50Ms', proxies, overDirect('p50Ms'))),
    '',
    table(head('99th percentile added, ms'), of('p99Ms', proxies, overDirect('p99Ms'))),
    '',
    table(head('requests a second'), of('requestsPerSecond', targets)),
  ].join('\n');
}

/** Of one CPU: above this a process was not waiting for work, but work for it. */
const full = 0.9;

function stream(rows: readonly Row[]): string {
  const phases = variants(rows, 'stream');
  const words: Readonly<Record<string, string>> = { spread: 'each in its rhythm', step: 'all in step' };
  const value = (name: string, phase: string, measure: string) => find(rows, ['stream', name, phase, measure]);
  const lines = subjects(rows, 'stream').map((name) => [
    name,
    ...phases.flatMap((phase) => {
      const own = value(name, phase, 'cpuMicros');
      const nginx = value('nginx', phase, 'cpuMicros');
      const isFull = (value(name, phase, 'busiest')?.median ?? 0) > full;
      return [`${cell(own)}${isFull ? ' †' : ''}`, own && nginx ? cell(quotient(own, nginx)) : '-'];
    }),
  ]);
  const head = ['CPU µs per chunk', ...phases.flatMap((phase) => [words[phase] ?? phase, '÷ nginx'])];
  const rate = phases.map((phase) => value('nginx', phase, 'chunksPerSecond')?.median ?? 0);
  const notes = [
    `Paced by the engine, about ${number(Math.max(...rate))} chunks a second in all, the requests that begin the streams included.`,
    'Each in its rhythm: as from many engines.',
    ...(phases.includes('step')
      ? ['All in step: as from one engine, whose decoding steps write to all its streams.']
      : []),
    ...(lines.some((line) => line.some((text) => text.includes('†')))
      ? [`† a process took more than ${full * 100} % of a CPU: chunks waited for it and were relayed together.`]
      : []),
  ];
  return ['## Streams', '', table(head, lines), '', notes.join(' ')].join('\n');
}

function rest(rows: readonly Row[]): string {
  const measured = rows.filter((row) => row.part === 'rest');
  const lines = measured.map(({ subject, values }) => [subject, cell(values.cpuMsPerSecond)]);
  const own = measured.find(({ subject }) => subject === 'services')?.values ?? {};
  const processes = ['ingress', 'router', 'nats'].map((process) => [
    `services, ${process}`,
    cell(own[`cpuMsPerSecond.${process}`]),
  ]);
  const note = 'Nothing is asked of them, and has not been for twelve seconds.';
  return ['## At rest', '', table(['target', 'CPU, ms/s'], [...lines, ...processes]), '', note].join('\n');
}

function memory(rows: readonly Row[]): string {
  const measured = rows.filter((row) => row.part === 'memory');
  const counts = [...new Set(measured.flatMap(({ values }) => Object.keys(values)))]
    .map((name) => /^kbPerStream\.(\d+)$/.exec(name)?.[1])
    .filter((count) => count !== undefined);
  const lines = measured.map(({ subject, values }) => [
    subject,
    cell(values.restMb),
    ...counts.map((count) => cell(values[`kbPerStream.${count}`])),
  ]);
  const services = measured.find(({ subject }) => subject === 'services')?.values ?? {};
  const share = ['ingress', 'router', 'nats']
    .map((process) => `${process} ${number(services[`restMb.${process}`]?.median ?? Number.NaN)}`)
    .join(', ');
  const head = ['target', 'RSS at rest, MB', ...counts.map((count) => `KB a stream, ${count} open`)];
  const note = `Services at rest: ${share} MB. A stream is held by the first process; 1 KB a stream is 1 MB per 1,000.`;
  return ['## Memory', '', table(head, lines), '', note].join('\n');
}

function errors({ rows, failures }: Results): string {
  const counted = rows.flatMap(({ part, subject, variant, values }) => {
    const count = (values.errors?.samples ?? []).reduce((sum, each) => sum + each, 0);
    return count > 0 ? [`- ${part}, ${subject}, ${variant}: ${count} requests failed`] : [];
  });
  const lines = [...counted, ...failures.map((failure) => `- not measured: ${failure}`)];
  const text = lines.length === 0 ? 'None: every request of every target was answered 200.' : lines.join('\n');
  return `## Errors\n\n${text}`;
}
