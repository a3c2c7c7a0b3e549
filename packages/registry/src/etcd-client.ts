import { isIP } from 'node:net';
import { checkServerIdentity } from 'node:tls';
import { Channel, ChannelCredentials, type ClientOptions, InterceptingCall, type Interceptor } from '@grpc/grpc-js';
import { Etcd3, type IOptions } from 'etcd3';
import { readTlsFiles, type TlsSettings } from './tls.ts';

const maxMessageBytes = 64 << 20;
/** etcd takes no more than one ping in 5 s. */
const pingIntervalMs = 10_000;
/**
 * Asked for (SNI) at a server whose address is an IP: gRPC asks for the host, and TLS forbids an IP
 * there (RFC 6066, section 3). etcd has one certificate and looks at no name.
 */
const noName = 'etcd.invalid';
const invalidToken = 'etcdserver: invalid auth token';
/**
 * What an invalid token is called here: the library asks for ever for a new one of its own when it
 * reads etcd's words.
 */
export const loginEnded = 'the login to etcd ended';

type FaultHandling = NonNullable<IOptions['faultHandling']>;
type Policy = NonNullable<FaultHandling['global']>;

/**
 * Calls what it is given, once. The library's own policies are not ours: its circuit breaker
 * refuses calls for five seconds after an outage, and its retries hide which endpoint failed.
 */
const once: Policy = {
  // A marker of the library's types; nothing reads it.
  _altReturn: undefined as never,
  onSuccess: () => ({ dispose() {} }),
  onFailure: () => ({ dispose() {} }),
  execute: async (work) => work({ signal: new AbortController().signal }),
};

/**
 * A client of one etcd endpoint, with the certificates as the files hold them now. Throws when
 * these cannot be read or used. Each call carries the token that `token` returns at its start, if
 * any. The library's own login is not used: it goes over a connection of its own that knows nothing
 * of the options here, and that is never closed.
 */
export function connectEtcd(
  url: string,
  settings: { readonly tls: TlsSettings; readonly dialTimeoutMs: number },
  token: () => string | null,
): Etcd3 {
  const security = url.startsWith('https:') ? secure(url, settings.tls) : {};
  return new Etcd3({
    hosts: url,
    faultHandling: { global: once, host: () => once },
    grpcOptions: {
      'grpc.max_receive_message_length': maxMessageBytes,
      // A connection of its own: a shared one may still sit out the back-off of an earlier failure,
      // up to two minutes.
      'grpc.use_local_subchannel_pool': 1,
      // A proxy of the environment is for the internet.
      'grpc.enable_http_proxy': 0,
      'grpc.keepalive_time_ms': pingIntervalMs,
      'grpc.keepalive_timeout_ms': settings.dialTimeoutMs,
      interceptors: [withToken(token)],
      ...security,
    },
  });
}

/**
 * The library takes certificates, but no way to check those of a server, so the channel is made
 * here.
 */
function secure(url: string, tls: TlsSettings): ClientOptions {
  const { ca = null, key = null, cert = null } = readTlsFiles(tls);
  const host = new URL(url).hostname.replace(/^\[(.*)\]$/, '$1');
  const expected = tls.serverName || host;
  const credentials = ChannelCredentials.createSsl(ca, key, cert, {
    checkServerIdentity: (_asked, certificate) => checkServerIdentity(expected, certificate),
  });
  return {
    'grpc.ssl_target_name_override': isIP(expected) ? noName : expected,
    channelFactoryOverride: (address, _credentials, options) => new Channel(address, credentials, options),
  };
}

function withToken(token: () => string | null): Interceptor {
  return (options, nextCall) =>
    new InterceptingCall(nextCall(options), {
      start(metadata, _listener, next) {
        const current = token();
        if (current !== null) metadata.set('token', current);
        next(metadata, {
          onReceiveStatus(status, pass) {
            pass(status.details.includes(invalidToken) ? { ...status, details: loginEnded } : status);
          },
        });
      },
    });
}
