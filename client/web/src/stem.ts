/** A model's public part: the client computes it in the clear, and encrypts what it gives. */

import { type Bytes, sha256, toHex } from "./bytes.js";
import { BadStemError, ConfigurationError, DigestMismatchError, OutOfLevelsError } from "./errors.js";
import { CheckedFile, type OnnxRuntime } from "./onnxruntime.js";
import { Members } from "./reading.js";

const MOST_BYTES = 64 << 20;

/** What the server says of a public part. */
export interface StemProfile {
  /** Where the owner cut the network. */
  readonly public: string;
  /** What it means that this part is public. */
  readonly meaning: string;
  /** Of the ONNX file. */
  readonly sha256: string;
  readonly bytes: number;
  /** Of what the user gives. */
  readonly inputShape: readonly number[];
  /** The range of its output, which becomes 0 to 1: for each channel, or one for all. */
  readonly low: readonly number[];
  readonly high: readonly number[];
  /** Share of an input's values that may lie outside the range, where they are clipped. */
  readonly mostOutside: number;
}

/**
 * Reads what a profile says of a public part that gives so many channels.
 *
 * @throws MalformedError, BadStemError it is not usable.
 */
export function readStem(members: Members, channels: number): StemProfile {
  const side = (value: unknown): number => new Members({ side: value }, "ModelProfile, stem").integer("side", 1, 65535);
  const end = (value: unknown): number => new Members({ end: value }, "ModelProfile, stem").number("end");
  const stem = {
    public: members.text("public"),
    meaning: members.text("meaning"),
    sha256: members.matching("sha256", /^[0-9a-f]{64}$/),
    bytes: members.integer("bytes", 1, MOST_BYTES),
    inputShape: members.list("input_shape", 1, 3, side),
    low: members.list("low", 1, 65535, end),
    high: members.list("high", 1, 65535, end),
    mostOutside: members.number("most_outside", 0, 1),
  };
  const { low, high } = stem;
  if (low.length !== high.length || ![1, channels].includes(low.length)) {
    throw new BadStemError(`the public part's range has ${low.length} low and ${high.length} high ends for ${channels} channels`);
  }
  if (!low.every((least, at) => least < high[at]!)) throw new BadStemError("the public part's range has a low end that is not below the high one");
  return stem;
}

/** A public part whose file was checked. */
export class Stem {
  readonly profile: StemProfile;
  readonly #file: CheckedFile;

  private constructor(profile: StemProfile, file: CheckedFile) {
    this.profile = profile;
    this.#file = file;
  }

  /**
   * Opens a file.
   *
   * @param shape of what it gives, which is what is encrypted.
   * @param runtime gives onnxruntime-web.
   * @throws DigestMismatchError it is another file than the profile's.
   * @throws ConfigurationError there is no runtime.
   * @throws BadStemError it is not one that this client runs.
   */
  static async open(content: Uint8Array, profile: StemProfile, shape: readonly number[], runtime?: () => Promise<OnnxRuntime>): Promise<Stem> {
    const found = toHex(await sha256(content));
    if (content.length !== profile.bytes || found !== profile.sha256) {
      throw new DigestMismatchError(`the public part has SHA-256 ${found}, stated is ${profile.sha256}: it was damaged, or replaced meanwhile; fetch it again`);
    }
    if (!runtime) {
      throw new ConfigurationError(
        "the model has a public part, which is computed here: npm install onnxruntime-web, and connect with onnxruntime: () => import(\"onnxruntime-web\")",
      );
    }
    return new Stem(profile, await CheckedFile.open(content as Bytes, profile.inputShape, shape, await runtime()));
  }

  /**
   * Returns what is encrypted, from 0 to 1, for an input from 0 to 1: the file's output in its range, clipped at its ends.
   *
   * @throws OutOfLevelsError the output is no number, or more of it lies outside the range than for any input that the model was made for.
   */
  async unit(input: Float64Array): Promise<Float64Array> {
    const { low, high, mostOutside } = this.profile;
    const output = await this.#file.run(Float32Array.from(input));
    if (!output.every(Number.isFinite)) throw new OutOfLevelsError("the public part gives values that are infinite or not a number for this input");
    const perEnd = output.length / low.length;
    let outside = 0;
    const unit = Float64Array.from(output, (value, at) => {
      const end = Math.floor(at / perEnd);
      const scaled = (value - low[end]!) / (high[end]! - low[end]!);
      if (scaled < 0 || scaled > 1) outside++;
      return Math.min(Math.max(scaled, 0), 1);
    });
    if (outside / unit.length > mostOutside) {
      throw new OutOfLevelsError(
        `the input is unlike those that the model was made for: ${percent(outside / unit.length)} of the public part's values lie outside its range, ` +
          `at most ${percent(mostOutside)} may; give inputs of the kind that the model was trained on`,
      );
    }
    return unit;
  }

  /** Frees the runtime's memory. */
  async close(): Promise<void> {
    await this.#file.close();
  }
}

function percent(share: number): string {
  return `${(100 * share).toFixed(1)} %`;
}
