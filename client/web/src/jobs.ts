/** Jobs as the client knows them: what the server says of one, and how one is followed to its end. */

import { DeadlineError, CiphershiftError, MalformedError, UnknownJobError, UnreachableError, fromCode } from "./errors.js";
import { EventReader } from "./events.js";
import { type Exchange, RETRIED, errorOf, pause } from "./exchange.js";
import { Members } from "./reading.js";

const STATES = /^(pending|in_progress|completed|failed|canceled)$/;
const EVENTS = ["progress", "completed", "failed", "canceled"];
const JOB_ID = /^[A-Za-z0-9_-]{1,64}$/;
const SILENCE_SECONDS = 60; // a server says that it is still there more often than that
const PAUSE_SECONDS = 1;

/** What the server says of a job. */
export interface JobStatus {
  readonly id: string;
  readonly model: string;
  readonly state: "pending" | "in_progress" | "completed" | "failed" | "canceled";
  readonly images: number;
  /** ISO 8601. */
  readonly created: string;
  readonly progress: JobProgress;
  /** Jobs that wait before it, if it waits. */
  readonly queuePosition: number | null;
  /** Why it failed, if it did. */
  readonly error: CiphershiftError | null;
}

/** How far a job has come. */
export interface JobProgress {
  readonly layer: string | null;
  readonly bootstrapsDone: number;
  readonly bootstrapsTotal: number;
  readonly etaSeconds: number | null;
}

export type Observer = (status: JobStatus) => void;

/** Whether nothing more will happen to a job. */
export function isFinished(status: JobStatus): boolean {
  return ["completed", "failed", "canceled"].includes(status.state);
}

/** Returns where a job is on its server. Throws UnknownJobError for what can be no job's id. */
export function jobPath(id: string): string {
  if (!JOB_ID.test(id)) throw new UnknownJobError(`${JSON.stringify(id)} is not the id of a job`);
  return `/v2/jobs/${id}`;
}

/** Reads what the server says of a job. Throws MalformedError where that is not usable. */
export function readStatus(job: Members): JobStatus {
  const progress = job.object("progress");
  const state = job.matching("state", STATES) as JobStatus["state"];
  const id = job.matching("id", JOB_ID);
  return {
    id,
    model: job.text("model"),
    state,
    images: job.integer("images"),
    created: job.text("created", 64),
    progress: {
      layer: progress.optional("layer", (name) => progress.text(name)),
      bootstrapsDone: progress.integer("bootstraps_done"),
      bootstrapsTotal: progress.integer("bootstraps_total"),
      etaSeconds: progress.optional("eta_seconds", (name) => progress.number(name, 0)),
    },
    queuePosition: job.optional("queue_position", (name) => job.integer(name)),
    error: state === "failed" ? failure(job, id) : null,
  };
}

function failure(job: Members, id: string): CiphershiftError {
  const error = job.optional("error", (name) => job.object(name));
  return error ? fromCode(error.text("code"), error.text("detail")) : new CiphershiftError(`job ${id} failed without a reason`);
}

/** Asks how a job is doing. */
export async function statusOf(exchange: Exchange, id: string, signal?: AbortSignal): Promise<JobStatus> {
  return readStatus(Members.of((await exchange.send({ method: "GET", path: jobPath(id), signal })).content, "JobStatus"));
}

/**
 * Returns what became of a job, by the server's events, and by asking where events do not come through. A stream that breaks is taken up
 * after its last event.
 *
 * @throws DeadlineError it is not finished after `timeoutSeconds`, and goes on.
 * @throws UnreachableError the server is gone for longer than the exchange's retry timeout.
 */
export async function follow(
  exchange: Exchange, id: string, observe: Observer, timeoutSeconds: number, signal?: AbortSignal,
): Promise<JobStatus> {
  const end = performance.now() + timeoutSeconds * 1000;
  let lastId = "";
  for (;;) {
    const reader = new EventReader();
    let finished: JobStatus | undefined;
    const receive = (chunk: Uint8Array): boolean => {
      for (const event of reader.feed(chunk)) {
        if (!EVENTS.includes(event.name)) continue;
        const status = readStatus(Members.of(new TextEncoder().encode(event.data), "JobStatus"));
        if (status.id !== id) throw new MalformedError(`the events of job ${id} tell of job ${status.id}`);
        lastId = event.id;
        observe(status);
        if (isFinished(status)) finished = status;
      }
      return !finished && performance.now() < end;
    };
    const headers = { Accept: "text/event-stream", ...(lastId && { "Last-Event-ID": lastId }) };
    const silenceSeconds = Math.min(SILENCE_SECONDS, Math.max((end - performance.now()) / 1000, 0.1));
    try {
      const answer = await exchange.transport.send({ method: "GET", path: `${jobPath(id)}/events`, headers, silenceSeconds, receive, signal });
      if (answer.status !== 200 && !RETRIED.includes(answer.status)) throw errorOf(answer, exchange.transport.url);
    } catch (error) {
      if (!(error instanceof UnreachableError)) throw error; // if the server is gone, the next call says so
    }
    const status = finished ?? (await statusOf(exchange, id, signal));
    if (!finished) observe(status);
    if (isFinished(status)) return status;
    if (performance.now() >= end) throw new DeadlineError(`job ${id} is not finished after ${timeoutSeconds} s: wait longer, or cancel it`);
    await pause(PAUSE_SECONDS, signal);
  }
}
