import { randomUUID } from 'node:crypto';
import { chatReply } from './chat-reply.ts';
import { type GenerationLimits, readGeneration } from './generation.ts';
import type { Asked, Generator } from './generator.ts';
import { messagesReply } from './messages-reply.ts';
import { countPromptTokens, readMessages } from './messages-request.ts';
import { answerJson, type EngineCall, type Handler } from './route-server.ts';

/** OpenAI's chats and completions, and Anthropic's Messages. */
export function generationRoutes(limits: GenerationLimits, generator: Generator): [string, Handler][] {
  const chat =
    (kind: 'chat' | 'completion', prefix: string) =>
    ({ body, requestId }: EngineCall): Asked => {
      const generation = readGeneration(kind, body, limits);
      return { generation, id: idOf(prefix, requestId), reply: (answering) => chatReply(generation, answering) };
    };
  const messages = ({ body, requestId }: EngineCall): Asked => {
    const generation = readMessages(body, limits);
    return { generation, id: idOf('chatcmpl', requestId), reply: (answering) => messagesReply(generation, answering) };
  };
  return [
    ['POST /v1/chat/completions', generator.generating(chat('chat', 'chatcmpl'))],
    ['POST /v1/completions', generator.generating(chat('completion', 'cmpl'))],
    ['POST /v1/messages', generator.generating(messages)],
    [
      'POST /v1/messages/count_tokens',
      generator.immediate(({ response, body }) => {
        answerJson(response, JSON.stringify({ input_tokens: countPromptTokens(body, limits.models) }));
      }),
    ],
  ];
}

/** As vLLM makes them; Messages have the ids of the chats that they are to it. */
function idOf(prefix: string, requestId: string | undefined): string {
  return `${prefix}-${requestId ?? randomUUID().replaceAll('-', '')}`;
}
