// What was said, as a list of turns. Takes the server's events; knows no sockets and no page.
//
//   speech_started    a turn of the user begins          response.created       a turn of the model begins
//   …delta            words that stand                   output_text.delta      its words
//   …hypothesis       a guess behind them
//   …completed        the text that counts               response.done          how it ended

const TRANSCRIPTION = "conversation.item.input_audio_transcription";

export class Conversation {
  // timeOf(ms): when a place of the sound was recorded, onChange(turn), onRemove(turn), onDelay(kind, seconds)
  constructor({ timeOf, onChange, onRemove, onDelay }) {
    Object.assign(this, { timeOf, onChange, onRemove, onDelay });
    this.turns = [];
    this.asked = null; // when the last question was complete
    this.answer = null; // the turn of the response that is in progress
  }

  // A turn that was typed.
  ask(text, thumbnail, time) {
    this.asked = time;
    this.add({ role: "user", text, thumbnail, state: "done" });
  }

  take(event, time) {
    const take = TAKE[event.type];
    if (take !== undefined) take(this, event, time);
  }

  // The session has ended, so nothing that is open will be finished.
  end() {
    for (const turn of this.turns.filter(({ state }) => state === "open")) {
      this.change(turn, { state: "cut", draft: "" });
      this.removeIfEmpty(turn);
    }
    this.answer = null;
  }

  clear() {
    for (const turn of this.turns.splice(0)) this.onRemove(turn);
    this.answer = this.asked = null;
  }

  add(turn) {
    const whole = { text: "", draft: "", thumbnail: null, problem: null, delay: null, ...turn };
    this.turns.push(whole);
    this.onChange(whole);
    return whole;
  }

  change(turn, changes) {
    Object.assign(turn, changes);
    this.onChange(turn);
  }

  removeIfEmpty(turn) {
    if (turn.text !== "" || turn.problem !== null) return;
    this.turns.splice(this.turns.indexOf(turn), 1);
    this.onRemove(turn);
  }

  spoken(id) {
    return this.turns.find((turn) => turn.id === id) ?? this.add({ id, role: "user", state: "open", isSpoken: true });
  }
}

const TAKE = {
  "input_audio_buffer.speech_started": (talk, { item_id }) => talk.spoken(item_id),
  "input_audio_buffer.speech_stopped": (talk, { item_id, audio_end_ms }, time) => {
    talk.asked = talk.spoken(item_id).stopped = talk.timeOf(audio_end_ms) ?? time;
  },
  [`${TRANSCRIPTION}.delta`]: (talk, { item_id, delta }) => {
    const turn = talk.spoken(item_id);
    talk.change(turn, { text: turn.text + delta, draft: "" });
  },
  [`${TRANSCRIPTION}.hypothesis`]: (talk, { item_id, committed, draft }) => {
    talk.change(talk.spoken(item_id), { text: committed, draft });
  },
  [`${TRANSCRIPTION}.completed`]: (talk, { item_id, transcript }, time) => {
    const turn = talk.spoken(item_id);
    const delay = turn.stopped === undefined ? null : (time - turn.stopped) / 1000;
    talk.change(turn, { text: transcript.trim(), draft: "", state: "done", delay });
    if (turn.text === "") talk.removeIfEmpty(turn);
    else if (delay !== null) talk.onDelay("words", delay);
  },
  "response.created": (talk, { response }) => {
    talk.answer = talk.add({ id: response.id, role: "model", state: "open", asked: talk.asked });
    talk.asked = null;
  },
  "response.output_text.delta": (talk, { delta }, time) => {
    const turn = talk.answer;
    if (turn === null) return;
    if (turn.text === "" && typeof turn.asked === "number") {
      turn.delay = (time - turn.asked) / 1000;
      talk.onDelay("answer", turn.delay);
    }
    talk.change(turn, { text: turn.text + delta });
  },
  "response.done": (talk, { response }) => {
    const turn = talk.answer;
    talk.answer = null;
    if (turn === null) return;
    const { status, status_details: details } = response;
    if (status === "failed") {
      talk.change(turn, { state: "failed", problem: details?.error?.message ?? "The server could not answer." });
    } else {
      const state = status === "completed" ? "done" : status === "cancelled" ? "stopped" : "cut";
      const text = turn.text.trim();
      talk.change(turn, { text, state, problem: text === "" && state !== "stopped" ? "The answer is empty." : null });
      talk.removeIfEmpty(turn);
    }
  },
};
