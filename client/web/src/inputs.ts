/** What a server has to say of a model's inputs to people who make some: the kind of images, the fields of a table, examples. */

import type { Bytes } from "./bytes.js";
import { MalformedError } from "./errors.js";
import type { ImageKind } from "./fit.js";
import { type ModelProfile, valuesOf } from "./profile.js";
import { Members } from "./reading.js";

export const MOST_EXAMPLES = 100;

/** One value of a table's row: what it is called, and the values that stand for 0 and 1. */
export interface InputField {
  readonly name: string;
  readonly least: number;
  readonly most: number;
}

/** An input to try the model with. */
export interface InputExample {
  readonly name: string;
  /** The class that it has, empty if it is not known. */
  readonly label: string;
  /** Bytes from 0 to 255, as `predict` takes them. */
  readonly values: Bytes;
}

export interface ModelInputs {
  readonly images: ImageKind | null;
  /** One for each value of an input, or none. */
  readonly fields: readonly InputField[];
  readonly examples: readonly InputExample[];
}

/** Reads what a server says of a model's inputs. Throws MalformedError where it does not fit the model's profile. */
export function readInputs(content: Uint8Array, profile: ModelProfile): ModelInputs {
  const inputs = Members.of(content, "ModelInputs");
  const values = valuesOf(profile);
  const field = (value: unknown): InputField => {
    const members = new Members(value, "ModelInputs, fields");
    const least = members.number("least");
    return { name: members.text("name", 128), least, most: members.number("most", least) };
  };
  const example = (value: unknown): InputExample => {
    const members = new Members(value, "ModelInputs, examples");
    const bytes = fromBase64(members.matching("values", /^[A-Za-z0-9+/\s]*={0,2}\s*$/));
    if (bytes.length !== values) throw new MalformedError(`an example of ${profile.model} has ${bytes.length} values, the model takes ${values}`);
    return { name: members.text("name", 128), label: members.text("label", 128), values: bytes };
  };
  const fields = inputs.list("fields", 0, values, field);
  if (fields.length && fields.length !== values) {
    throw new MalformedError(`the server names ${fields.length} fields of ${profile.model}, which takes ${values} values`);
  }
  return {
    images: inputs.optional("images", (name) => inputs.matching(name, /^(drawing|photograph)$/) as ImageKind),
    fields,
    examples: inputs.list("examples", 0, MOST_EXAMPLES, example),
  };
}

function fromBase64(text: string): Bytes {
  try {
    return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  } catch {
    throw new MalformedError("an example's values are not base64");
  }
}
