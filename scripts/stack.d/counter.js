// A load on one workspace's counter alone (scripts/bench): each request is a turn's life as invoke-turn speaks of it to the object, without the turn. With
// ?extensions=N it gives so many signs of life in between.
export default {
  async fetch(request, env) {
    const { searchParams } = new URL(request.url);
    const workspace = searchParams.get("workspace");
    const object = env.QUOTA.get(env.QUOTA.idFromName(workspace));
    const ask = async (ask) => {
      const answer = await object.fetch("https://quota/", { method: "POST", body: JSON.stringify({ workspace, ask }) });
      return answer.json();
    };
    const turnId = crypto.randomUUID();
    const begin = {
      turnId, sessionId: null, newSessionId: crypto.randomUUID(), agentId: "echo", subject: "user_bench", tokenId: null, message: "Hello, what do you know about me?",
      idempotencyKey: null, requestHash: "bench", metadata: null, hostProviders: [], defaultModel: null, embedding: null, topK: 0, historyLimit: 40, leaseMillis: 60000,
    };
    const { begun } = await ask({ begin });
    if (!begun) return new Response("refused", { status: 429 });
    const usage = { inputTokens: 20, cachedInputTokens: 0, outputTokens: 20, reasoningTokens: 0, source: "provider" };
    for (let sequence = 1; sequence <= Number(searchParams.get("extensions") ?? 0); sequence += 1) {
      await ask({ extend: { turnId, sequence, progress: usage, inputBound: 0, output: 0, isUrgent: false } });
    }
    const { finished } = await ask({
      finish: {
        turnId, sessionId: begin.newSessionId, newSession: true, agentId: begin.agentId, subject: begin.subject, status: "completed", finishReason: "stop",
        message: begin.message, content: "I know nothing about you.", provider: "local", model: "echo-1", priceVersion: 1, usage, costNanoUsd: 15000,
        idempotencyKey: null, requestHash: begin.requestHash, errorCode: null, answer: {}, metadata: null, startedAt: begun.startedAt, endedAt: begun.startedAt,
      },
    });
    return new Response(finished?.saved ? "saved" : "not saved", { status: finished?.saved ? 200 : 500 });
  },
};
