/** What Node has beside the rest: keys in a folder, the very one of the Python client if wanted. */

import { chmod, mkdir, mkdtemp, open, readFile, readdir, rename, rm, stat } from "node:fs/promises";
import { dirname, join } from "node:path";

import { ExposedKeyError } from "./errors.js";
import type { Store } from "./keystore.js";

/** Entries as files of a folder, readable by the user alone. */
export class FolderStore implements Store {
  readonly #folder: string;

  /** @param folder is made when there is something to keep. */
  constructor(folder: string) {
    this.#folder = folder;
  }

  /** Returns an entry. Throws ExposedKeyError if other users of the machine can read a file of secret keys. */
  async read(name: string): Promise<Uint8Array | undefined> {
    const path = join(this.#folder, name);
    try {
      const mode = (await stat(path)).mode & 0o777;
      if (name.endsWith("/client.keys") && mode & 0o077 && process.platform !== "win32") {
        throw new ExposedKeyError(`${path} has mode ${mode.toString(8)}, others can read it: chmod 600, or delete ${dirname(path)}`);
      }
      return new Uint8Array(await readFile(path));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
      throw error;
    }
  }

  async create(entries: ReadonlyMap<string, Uint8Array>): Promise<boolean> {
    await mkdir(this.#folder, { recursive: true, mode: 0o700 });
    const temporary = await mkdtemp(join(this.#folder, ".making-"));
    try {
      const parents = new Set([...entries.keys()].map((name) => dirname(name)));
      for (const [name, bytes] of entries) {
        await mkdir(join(temporary, dirname(name)), { recursive: true, mode: 0o700 });
        await write(join(temporary, name), bytes);
      }
      for (const parent of parents) await rename(join(temporary, parent), join(this.#folder, parent));
      return true;
    } catch (error) {
      if (["ENOTEMPTY", "EEXIST"].includes((error as NodeJS.ErrnoException).code ?? "")) return false;
      throw error;
    } finally {
      await rm(temporary, { recursive: true, force: true });
    }
  }

  async replace(name: string, bytes: Uint8Array): Promise<void> {
    const path = join(this.#folder, name);
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    const temporary = `${path}.${process.pid}.part`;
    await rm(temporary, { force: true });
    await write(temporary, bytes);
    await rename(temporary, path);
  }

  async remove(prefix: string): Promise<void> {
    const [parent, start] = prefix.split("/") as [string, string];
    const folder = join(this.#folder, parent);
    for (const name of await readdir(folder).catch(() => [])) {
      if (name.startsWith(start)) await rm(join(folder, name));
    }
    if (!start) await rm(folder, { recursive: true, force: true });
  }
}

async function write(path: string, bytes: Uint8Array): Promise<void> {
  const file = await open(path, "wx", 0o600);
  try {
    await file.writeFile(bytes);
    await file.sync();
  } finally {
    await file.close();
  }
  await chmod(path, 0o600);
}
