import { existsSync } from 'node:fs';
import { FollowedFile, type Logger, type Metrics, type ReadText, readRegularFile } from '@llm-gateway/runtime';
import { type MirrorConfig, mirrorConfigRemarks, mirroringOff, readMirrorConfig } from './config.ts';
import { mirrorOptions } from './options.ts';

const maxConfigBytes = 1024 * 1024;

const readText: ReadText<MirrorConfig> = (text) => {
  const read = readMirrorConfig(text);
  return 'mistake' in read ? read : { value: read.config };
};

/**
 * Follows the mirror config file.
 * @param options.onChange is called with each new config, in effect from then on
 */
export function mirrorConfigFile(options: {
  path: string;
  intervalMs: number;
  onChange: (config: MirrorConfig) => void;
  log: Pick<Logger, 'info' | 'error'>;
  metrics: Metrics;
}): FollowedFile<MirrorConfig> {
  const file = new FollowedFile<MirrorConfig>({
    ...options,
    maxBytes: maxConfigBytes,
    what: 'mirror config',
    metric: 'mirror_config',
    initial: mirroringOff,
    read: readText,
    shown({ Authorization, Target, ...shown }) {
      // A target that is not used was not checked, and might hold a password.
      return { target: shown.Enable ? Target : undefined, ...shown, authorization: Authorization !== '' };
    },
  });
  options.metrics.gauge({
    name: 'mirror_enabled',
    help: '1 while requests are mirrored',
    collect: () => Number(file.value.Enable && file.value.Ratio > 0),
  });
  return file;
}

interface MirrorFlags {
  readonly mirrorConfig: string;
}

/** Mistakes in the file as it is now. A start goes on without mirroring until it is corrected. */
export function mirrorConfigMistakes({ mirrorConfig: path }: MirrorFlags): string[] {
  if (!existsSync(path)) return [];
  const flag = `--mirror-config: ${path}`;
  try {
    const read = readMirrorConfig(readRegularFile(path, maxConfigBytes));
    return 'mistake' in read ? [`${flag}: ${read.mistake}`] : [];
  } catch (error) {
    return [`${flag} cannot be read: ${error instanceof Error ? error.message : error}`];
  }
}

/** What of the file is ignored, and that a file which somebody named is not there. */
export function mirrorConfigRemarksOf({ mirrorConfig: path }: MirrorFlags): string[] {
  const flag = `--mirror-config: ${path}`;
  if (!existsSync(path)) {
    return path === mirrorOptions['mirror-config'].default
      ? []
      : [`${flag} is missing; mirroring is off until it appears`];
  }
  try {
    return mirrorConfigRemarks(readRegularFile(path, maxConfigBytes)).map((remark) => `${flag}: ${remark}`);
  } catch {
    return [];
  }
}
