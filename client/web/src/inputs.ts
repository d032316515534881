/** What a server has to say of a model's inputs to people who make some: the kind of images, and examples. */

import { MalformedError } from "./errors.js";
import type { ImageKind } from "./fit.js";
import type { Pixels } from "./images.js";
import { type ModelProfile, valuesOf } from "./profile.js";
import { Members } from "./reading.js";

export const MOST_EXAMPLES = 100;

/** An input to try the model with. */
export interface InputExample {
  readonly name: string;
  /** The class that it has, empty if it is not known. */
  readonly label: string;
  /** As `predict` takes it. */
  readonly values: Pixels;
}

export interface ModelInputs {
  readonly images: ImageKind | null;
  readonly examples: readonly InputExample[];
}

/** Reads what a server says of a model's inputs. Throws MalformedError where it does not fit the model's profile. */
export function readInputs(content: Uint8Array, profile: ModelProfile): ModelInputs {
  const inputs = Members.of(content, "ModelInputs");
  const values = valuesOf(profile.sampleShape);
  const example = (value: unknown): InputExample => {
    const members = new Members(value, "ModelInputs, examples");
    const found = isList(value)
      ? Float64Array.from(members.numbers("values", values, -Infinity, Infinity))
      : fromBase64(members.matching("values", /^[A-Za-z0-9+/\s]*={0,2}\s*$/));
    if (found.length !== values) throw new MalformedError(`an example of ${profile.model} has ${found.length} values, the model takes ${values}`);
    return { name: members.text("name", 128), label: members.text("label", 128), values: found };
  };
  return {
    images: inputs.optional("images", (name) => inputs.matching(name, /^(drawing|photograph)$/) as ImageKind),
    examples: inputs.list("examples", 0, MOST_EXAMPLES, example),
  };
}

/** Whether an example's values are numbers, and not base64. */
function isList(example: unknown): boolean {
  return Array.isArray((example as { values?: unknown }).values);
}

function fromBase64(text: string): Uint8Array {
  try {
    return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  } catch {
    throw new MalformedError("an example's values are not base64");
  }
}
