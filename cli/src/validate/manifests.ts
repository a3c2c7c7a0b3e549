import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import type { Environment } from '@llm-gateway/runtime';
import { parseAllDocuments } from 'yaml';
import { services } from '../services.ts';

/** A container that runs a service of the gateway. */
export interface Container {
  /** `Deployment/ingress gateway`. */
  readonly place: string;
  readonly service: string;
  readonly argv: readonly string[];
  readonly env: Environment;
  /** Where a file of the container is here: the path itself where nothing of the manifests is mounted. */
  here(path: string): string;
  /** A mistake with the paths that the container has. */
  original(mistake: string): string;
}

export interface Containers extends Disposable {
  readonly containers: readonly Container[];
  readonly mistakes: readonly string[];
  /** What cannot be checked, because it is not in the manifests. */
  readonly notes: readonly string[];
}

type Mapping = Readonly<Record<string, unknown>>;

/** ConfigMaps and Secrets of the manifests by kind and name, and their texts by key. */
type Sources = ReadonlyMap<string, ReadonlyMap<string, string>>;

/**
 * The containers of manifests, with the variables, and the files of ConfigMaps and Secrets, that
 * they would see. The files are written to a temporary folder until this is disposed; what a text
 * says of a mounted path is changed to that folder.
 */
export function containersOf(text: string): Containers {
  const folder = mkdtempSync(join(tmpdir(), 'llm-gateway-validate-'));
  const mistakes: string[] = [];
  const notes = new Set<string>();
  const documents = parseAllDocuments(text, { prettyErrors: false });
  for (const { errors } of documents) {
    for (const { code, pos } of errors) mistakes.push(`at character ${pos[0]}: not valid YAML (${code})`);
  }
  const objects =
    mistakes.length > 0 ? [] : documents.map((one): unknown => one.toJS({ maxAliasCount: 1000 })).filter(isMapping);
  const sources = sourcesOf(objects);
  const containers = objects.flatMap((object) =>
    podsOf(object).flatMap(({ pod, metadata }) =>
      listOf(pod, 'containers', 'initContainers').flatMap((container, index) => {
        const place = `${object.kind}/${nameOf(object)} ${container.name}`;
        const mounts = mountsOf(pod, container, {
          sources,
          folder: join(folder, `${nameOf(object)}-${index}`),
          place,
          notes,
        });
        return containerOf(container, { place, sources, mounts, notes, metadata });
      }),
    ),
  );
  return {
    containers,
    mistakes,
    notes: [...notes],
    [Symbol.dispose]: () => rmSync(folder, { recursive: true, force: true }),
  };
}

function sourcesOf(objects: readonly Mapping[]): Sources {
  const sources = new Map<string, ReadonlyMap<string, string>>();
  for (const object of objects) {
    if (object.kind !== 'ConfigMap' && object.kind !== 'Secret') continue;
    const decode = (value: string) => (object.kind === 'Secret' ? Buffer.from(value, 'base64').toString() : value);
    const texts = [
      ...Object.entries(mappingOf(object, 'data')).map(([key, value]) => [key, decode(String(value))] as const),
      ...Object.entries(mappingOf(object, 'stringData')).map(([key, value]) => [key, String(value)] as const),
    ];
    sources.set(`${object.kind} ${nameOf(object)}`, new Map(texts));
  }
  return sources;
}

/** The pods that an object makes, and what is known of them. */
function podsOf(object: Mapping): { readonly pod: Mapping; readonly metadata: Mapping }[] {
  const spec = mappingOf(object, 'spec');
  if (object.kind === 'Pod') return [{ pod: spec, metadata: mappingOf(object, 'metadata') }];
  const template =
    object.kind === 'CronJob'
      ? mappingOf(mappingOf(mappingOf(spec, 'jobTemplate'), 'spec'), 'template')
      : mappingOf(spec, 'template');
  const pod = mappingOf(template, 'spec');
  return Object.keys(pod).length === 0 ? [] : [{ pod, metadata: mappingOf(template, 'metadata') }];
}

interface Mount {
  readonly path: string;
  /** Where its files are here; null: what would be there is not known. */
  readonly folder: string | null;
}

function mountsOf(
  pod: Mapping,
  container: Mapping,
  { sources, folder, place, notes }: { sources: Sources; folder: string; place: string; notes: Set<string> },
): Mount[] {
  const volumes = new Map(listOf(pod, 'volumes').map((volume) => [volume.name, volume]));
  const writes: (readonly [file: string, text: string])[] = [];
  const mounts = listOf(container, 'volumeMounts').map((mount, index): Mount => {
    const path = String(mount.mountPath);
    const volume = volumes.get(mount.name) ?? {};
    const parts = 'projected' in volume ? listOf(mappingOf(volume, 'projected'), 'sources') : [volume];
    const files = new Map<string, string>();
    let isKnown = parts.length > 0;
    for (const part of parts) {
      const [kind, from] =
        'secret' in part ? ['Secret', mappingOf(part, 'secret')] : ['ConfigMap', mappingOf(part, 'configMap')];
      const name = String(from.secretName ?? from.name ?? '');
      const texts = sources.get(`${kind} ${name}`);
      if (texts === undefined) {
        isKnown = false;
        if (name !== '' && from.optional !== true)
          notes.add(`${place}: ${path} is not checked: ${kind} ${name} is not in the manifests`);
        continue;
      }
      const items = listOf(from, 'items');
      const chosen = items.length === 0 ? [...texts.keys()].map((key) => ({ key, path: key })) : items;
      for (const item of chosen) files.set(String(item.path), texts.get(String(item.key)) ?? '');
    }
    if (!isKnown) return { path, folder: null };
    const own = join(folder, String(index));
    mkdirSync(own, { recursive: true });
    for (const [file, text] of files) {
      // A key has no folder in it; a path of items might.
      if (basename(file) === file) writes.push([join(own, file), text]);
    }
    if (typeof mount.subPath === 'string') return { path, folder: join(own, mount.subPath) };
    return { path, folder: own };
  });
  // A route config names the files of its keys by the paths of the container.
  for (const [file, text] of writes) writeFileSync(file, moved(text, mounts), { mode: 0o600 });
  return mounts;
}

/** A text with the paths of mounts changed to where their files are here. */
function moved(text: string, mounts: readonly Mount[]): string {
  return mounts.reduce(
    (all, { path, folder }) => (folder === null ? all : all.replaceAll(`${path}/`, `${folder}/`)),
    text,
  );
}

function containerOf(
  container: Mapping,
  {
    place,
    sources,
    mounts,
    notes,
    metadata,
  }: { place: string; sources: Sources; mounts: readonly Mount[]; notes: Set<string>; metadata: Mapping },
): Container[] {
  const words = [...wordsOf(container, 'command'), ...wordsOf(container, 'args')];
  const [service = '', ...argv] = words[0]?.endsWith('llm-gateway') ? words.slice(1) : words;
  if (!services.has(service)) return [];
  const env = variablesOf(container, { place, sources, notes, metadata });
  const unknown = mounts.filter(({ folder }) => folder === null);
  const isUnknown = (value: string) => unknown.some(({ path }) => value.replace(/^@/, '').startsWith(`${path}/`));
  const here = (value: string) => moved(value, mounts);
  const expanded = argv.map((word) =>
    word.replaceAll(/\$\(([A-Za-z_]\w*)\)/g, (whole, name: string) => env[name] ?? whole),
  );
  return [
    {
      place,
      service,
      // A flag whose file is not known is left out with its value.
      argv: expanded.filter((word, at) => !isUnknown(word) && !isUnknown(expanded[at + 1] ?? '')).map(here),
      env: Object.fromEntries(
        Object.entries(env).flatMap(([name, value]) => (isUnknown(value) ? [] : [[name, here(value)]])),
      ),
      here,
      original: (mistake) =>
        mounts.reduce((text, { path, folder }) => (folder === null ? text : text.replaceAll(folder, path)), mistake),
    },
  ];
}

function variablesOf(
  container: Mapping,
  { place, sources, notes, metadata }: { place: string; sources: Sources; notes: Set<string>; metadata: Mapping },
): Record<string, string> {
  const env: Record<string, string> = {};
  const missing = (what: string) => notes.add(`${place}: ${what} is not in the manifests`);
  for (const from of listOf(container, 'envFrom')) {
    const [kind, ref] =
      'secretRef' in from ? ['Secret', mappingOf(from, 'secretRef')] : ['ConfigMap', mappingOf(from, 'configMapRef')];
    const texts = sources.get(`${kind} ${ref.name}`);
    if (texts === undefined && ref.optional !== true) missing(`${kind} ${ref.name}`);
    for (const [key, value] of texts ?? []) env[`${from.prefix ?? ''}${key}`] = value;
  }
  for (const variable of listOf(container, 'env')) {
    const name = String(variable.name);
    const from = mappingOf(variable, 'valueFrom');
    if ('value' in variable) env[name] = String(variable.value);
    else if ('fieldRef' in from || 'resourceFieldRef' in from)
      env[name] = fieldValue(String(mappingOf(from, 'fieldRef').fieldPath), metadata);
    else {
      const [kind, ref] =
        'secretKeyRef' in from
          ? ['Secret', mappingOf(from, 'secretKeyRef')]
          : ['ConfigMap', mappingOf(from, 'configMapKeyRef')];
      const value = sources.get(`${kind} ${ref.name}`)?.get(String(ref.key));
      if (value !== undefined) env[name] = value;
      else if (ref.optional !== true) missing(`${kind} ${ref.name}, key ${ref.key}`);
    }
  }
  return env;
}

/** Of labels and annotations what the manifests say, of other fields what one might have. */
function fieldValue(path: string, metadata: Mapping): string {
  const [, kind = '', name = ''] = /^metadata\.(labels|annotations)\['(.+)'\]$/.exec(path) ?? [];
  if (kind !== '') return String(mappingOf(metadata, kind)[name] ?? '');
  return fieldValues[path] ?? 'pod-1';
}

/** What a pod would know of itself. */
const fieldValues: Readonly<Record<string, string>> = {
  'status.podIP': '127.0.0.1',
  'status.hostIP': '127.0.0.1',
};

function isMapping(value: unknown): value is Mapping {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function mappingOf(object: Mapping, key: string): Mapping {
  const value = object[key];
  return isMapping(value) ? value : {};
}

function listOf(object: Mapping, ...keys: readonly string[]): Mapping[] {
  return keys.flatMap((key) => {
    const value = object[key];
    return Array.isArray(value) ? value.filter(isMapping) : [];
  });
}

function wordsOf(object: Mapping, key: string): string[] {
  const value = object[key];
  return Array.isArray(value) ? value.map(String) : [];
}

function nameOf(object: Mapping): string {
  return String(mappingOf(object, 'metadata').name);
}
