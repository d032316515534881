/** What a client keeps of a job that it has submitted, as the Python client keeps it: no secret, without the secret keys it reads nothing. */

import { MalformedError, UnknownJobError } from "./errors.js";
import { jobPath } from "./jobs.js";
import type { Store } from "./keystore.js";
import { type ModelProfile, readProfile } from "./profile.js";
import { Members } from "./reading.js";

const DIGEST = /^[0-9a-f]{64}$/;

/** What reads the answer of one job. */
export interface Receipt {
  readonly jobId: string;
  readonly requestId: string;
  readonly keyId: string;
  readonly profile: ModelProfile;
  /** What the answer to each image is bound to. */
  readonly requests: readonly string[];
}

/** Writes a receipt. */
export async function keepReceipt(store: Store, receipt: Receipt): Promise<void> {
  const json = {
    job_id: receipt.jobId, request_id: receipt.requestId, key_id: receipt.keyId, profile: receipt.profile.json, requests: receipt.requests,
  };
  await store.replace(nameOf(receipt.jobId), new TextEncoder().encode(JSON.stringify(json)));
}

/**
 * Returns the receipt of a job.
 *
 * @throws UnknownJobError the job was submitted with another keystore.
 */
export async function findReceipt(store: Store, jobId: string): Promise<Receipt> {
  const bytes = await store.read(nameOf(jobId));
  if (!bytes) throw new UnknownJobError(`job ${jobId} was not submitted with this keystore: only who submitted it can read its answer`);
  const members = Members.of(bytes, "Receipt");
  const requests = members.list("requests", 1, 1 << 16, (value) => {
    if (typeof value !== "string" || !DIGEST.test(value)) throw new MalformedError("a receipt's request is no digest");
    return value;
  });
  const { profile } = JSON.parse(new TextDecoder().decode(bytes)) as { profile: unknown };
  return {
    jobId: members.text("job_id"),
    requestId: members.text("request_id"),
    keyId: members.matching("key_id", DIGEST),
    profile: await readProfile(profile),
    requests,
  };
}

/** Forgets a receipt. */
export async function forgetReceipt(store: Store, jobId: string): Promise<void> {
  await store.remove(nameOf(jobId));
}

function nameOf(jobId: string): string {
  jobPath(jobId); // else it would be no name for an entry either
  return `jobs/${jobId}.json`;
}
