// The stock npm packages openai and @openai/agents against a server. Run it where they are installed:
//
//     npm install openai @openai/agents ws zod
//     python .../tests/make_tools_checkpoint.py tools-demo
//     mlx_gemma4 serve --model tools-demo --dtype float32 --port 8091
//     node .../tests/node_clients.mjs http://127.0.0.1:8091/v1
//
// It prints a line for each check.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import net from "node:net";
import path from "node:path";
import { pathToFileURL } from "node:url";

const installed = createRequire(path.join(process.cwd(), "node_modules"));
const load = (name) => import(pathToFileURL(installed.resolve(name)));
const { default: OpenAI, toFile } = await load("openai");
const { zodFunction, zodResponseFormat } = await load("openai/helpers/zod");
const { OpenAIRealtimeWS } = await load("openai/realtime/ws");
const agents = await load("@openai/agents");
const { z } = await load("zod");

const TESTS = import.meta.dirname;
const golden = JSON.parse(readFileSync(path.join(TESTS, "data", "demo", "golden.json")));
const said = (name) => golden.recordings[name].utterances.map((each) => each.google.text).join(" ");
const PICTURE = "picture-02.png", SPEECH = "hibari-03.wav", OTHER = "pico-04.wav", DESCRIBE = "Describe the image.";
const NAMED = golden.pictures[PICTURE].text;
const media = (name) => readFileSync(path.join(TESTS, "..", "mlx_gemma4", "demo", "media", name));
const url = `data:image/png;base64,${media(PICTURE).toString("base64")}`;
const question = [
    { role: "user", content: [{ type: "image_url", image_url: { url } }, { type: "text", text: DESCRIBE }] },
];
const items = [
    { role: "user", content: [{ type: "input_image", image: url }, { type: "input_text", text: DESCRIBE }] },
];
const base = process.argv[2];
const client = new OpenAI({ baseURL: base, apiKey: "none", maxRetries: 0 });
const Shape = z.object({ colour: z.enum(["red", "blue"]), sides: z.literal([0, 3, 4]).nullable() });
const Lights = z.object({ room: z.enum(["hall", "attic"]), on: z.boolean() });

async function chat() {
    const answer = await client.chat.completions.create({ model: "demo", messages: question });
    assert.equal(answer.choices[0].message.content, NAMED);
}

async function stream() {
    let text = "";
    for await (const chunk of await client.chat.completions.create({ model: "demo", messages: question, stream: true }))
        text += chunk.choices[0]?.delta.content ?? "";
    assert.equal(text, NAMED);
    const helper = client.chat.completions.stream({ model: "demo", messages: question });
    assert.equal(await helper.finalContent(), NAMED);
}

async function parsed() {
    const form = zodResponseFormat(Shape, "shape");
    const options = { model: "demo", messages: question, max_tokens: 2000 };
    const answer = await client.chat.completions.parse({ ...options, response_format: form });
    Shape.parse(answer.choices[0].message.parsed);
    const tools = [zodFunction({ name: "lights", parameters: Lights })];
    const called = await client.chat.completions.parse({ ...options, tools, tool_choice: "required" });
    for (const call of called.choices[0].message.tool_calls) Lights.parse(call.function.parsed_arguments);
    assert.equal(called.choices[0].finish_reason, "tool_calls");
}

async function runsTools() {
    let calls = 0;
    const lights = { type: "function", name: "lights", description: "", parse: JSON.parse };
    const runner = client.chat.completions.runTools({
        model: "demo",
        messages: question,
        tool_choice: { type: "function", function: { name: "lights" } },
        tools: [{ type: "function", function: { ...lights, parameters: z.toJSONSchema(Lights), function: called } }],
    });
    function called(given) {
        Lights.parse(given);
        calls += 1;
        return "They are on.";
    }
    await runner.done();
    assert.equal(calls, 1);
}

async function responses() {
    const content = [{ type: "input_image", image_url: url, detail: "auto" }, { type: "input_text", text: DESCRIBE }];
    const asked = { model: "demo", input: [{ role: "user", content }] };
    assert.equal((await client.responses.create(asked)).output_text, NAMED);
    const streamed = client.responses.stream(asked);
    assert.equal((await streamed.finalResponse()).output_text, NAMED);
}

async function transcription() {
    for (const name of [SPEECH, OTHER]) {
        const file = await toFile(media(name), name);
        const text = (await client.audio.transcriptions.create({ model: "demo", file })).text;
        assert.equal(text, said(name));
        let streamed = "", last;
        for await (const event of await client.audio.transcriptions.create({ model: "demo", file, stream: true })) {
            last = event;
            streamed += event.type === "transcript.text.delta" ? event.delta : "";
        }
        assert.deepEqual([streamed, last.text], [said(name), said(name)]);
    }
}

// The package speaks wss: alone, and this server has no TLS; so its socket is opened without. A proxy with a
// certificate does the same for programs that cannot say so.
const options = { createConnection: (where) => net.connect(where) };

async function realtime() {
    const socket = new OpenAIRealtimeWS({ intent: "transcription", options }, client);
    const ended = deferred();
    const kinds = [];
    let words = "";
    socket.on("event", (event) => kinds.push(event.type));
    socket.on("error", (error) => ended.reject(error));
    socket.on("session.created", () => {
        const input = { format: { type: "audio/pcm", rate: 24_000 }, turn_detection: null };
        socket.send({ type: "session.update", session: { type: "transcription", audio: { input } } });
        const sound = at24k(media(SPEECH).subarray(44));
        for (let start = 0; start < sound.length; start += 4800)
            socket.send({
                type: "input_audio_buffer.append",
                audio: sound.subarray(start, start + 4800).toString("base64"),
            });
        socket.send({ type: "input_audio_buffer.commit" });
    });
    socket.on("conversation.item.input_audio_transcription.delta", (event) => (words += event.delta));
    socket.on("conversation.item.input_audio_transcription.completed", (event) => ended.resolve(event.transcript));
    assert.equal(await ended.promise, said(SPEECH));
    assert.equal(words, said(SPEECH));
    assert.ok(kinds.includes("session.updated") && kinds.includes("input_audio_buffer.committed"));
    socket.close();
}

function deferred() {
    const made = {};
    made.promise = new Promise((resolve, reject) => Object.assign(made, { resolve, reject }));
    return made;
}

/** Samples of 16 kHz at 24 kHz, interpolated. */
function at24k(bytes) {
    const given = new Int16Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
    const made = new Int16Array((given.length * 3) / 2);
    for (let index = 0; index < made.length; index += 1) {
        const at = Math.floor((index * 2) / 3), part = (index * 2) % 3;
        made[index] = Math.trunc((given[at] * (3 - part) + given[Math.min(at + 1, given.length - 1)] * part) / 3);
    }
    return Buffer.from(made.buffer);
}

/** Agents with functions and with a form of the answer, by one of the package's two kinds of models. */
async function agentsBy(kind) {
    agents.setTracingDisabled(true);
    const model = new agents[kind](client, "demo");
    const answer = await agents.run(new agents.Agent({ name: "a", model }), items);
    assert.equal(answer.finalOutput, NAMED);
    const calls = [];
    const lights = agents.tool({
        name: "lights",
        description: "Switch lights.",
        parameters: Lights,
        execute: (given) => calls.push(given) && "They are on.",
    });
    const modelSettings = { toolChoice: "required", maxTokens: 2000 };
    const agent = new agents.Agent({ name: "a", model, tools: [lights], modelSettings, outputType: Shape });
    Shape.parse((await agents.run(agent, items)).finalOutput);
    assert.ok(calls.length);
    calls.forEach((given) => Lights.parse(given));
    const streamed = await agents.run(new agents.Agent({ name: "a", model }), items, { stream: true });
    let text = "";
    for await (const piece of streamed.toTextStream()) text += piece;
    await streamed.completed;
    assert.equal(text, NAMED);
}

const agentsByChat = () => agentsBy("OpenAIChatCompletionsModel");
const agentsByResponses = () => agentsBy("OpenAIResponsesModel");

const checks = {
    chat, stream, parsed, runsTools, responses, transcription, realtime, agentsByChat, agentsByResponses,
};
for (const [name, check] of Object.entries(checks)) {
    await check();
    console.log(`ok  ${name}`);
}
