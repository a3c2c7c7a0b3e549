export { type Breakpoint, completion, cut, event, raw, refuse, respond, stall, stream } from './answer.ts';
export { atRate } from './at-rate.ts';
export { type Binary, findBinary, findExecutable } from './binary.ts';
export { type BlackHole, startBlackHole } from './black-hole.ts';
export { type Certificates, createCertificates, type KeyPair } from './certificate.ts';

export { type CollectedSpan, type Collector, startCollector, treeText } from './collector.ts';
export { type ConversationOptions, conversations, giantSession, type TracedRequest } from './conversations.ts';

export {
  type DiscoveryInstance,
  type DiscoveryRecord,
  discoveryRecord,
  putEtcd,
  setRedis,
} from './discovery-record.ts';
export { Engine, type EngineOptions, startEngine } from './engine.ts';
export type { Answer, EngineReply, EngineRequest, Script } from './engine-reply.ts';
export { type EtcdCluster, type EtcdOptions, type EtcdServer, startEtcd, startEtcdCluster } from './etcd.ts';
export { type MetricSample, type MetricsReading, parseMetrics, readMetrics } from './metrics.ts';
export { type NatsOptions, type NatsServer, type NatsUser, startNats } from './nats.ts';
export { freePort } from './port.ts';
export { type Exit, Process, startProcess } from './process.ts';
export { type Prometheus, type PrometheusSample, type ScrapeJob, startPrometheus } from './prometheus.ts';
export { type Proxy, startProxy } from './proxy.ts';
export {
  type RedisCluster,
  type RedisOptions,
  type RedisServer,
  startRedis,
  startRedisCluster,
  startSentinel,
} from './redis.ts';
export { Server } from './server.ts';
export { nodePath, type Service, type ServiceOptions, startService } from './service.ts';
export { type OpenSocket, openSockets } from './socket.ts';
export { temporaryFolder } from './temporary.ts';
export { until } from './until.ts';
