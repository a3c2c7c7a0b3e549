import { FollowedFile, type Logger, type Metrics, type ReadText } from '@llm-gateway/runtime';
import { type MirrorConfig, mirroringOff, readMirrorConfig } from './config.ts';

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
