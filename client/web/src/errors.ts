/**
 * The error tree, with the codes of the server and of the Python client: every mistake has one class and one stable code.
 * A message names the thing, the value and the limit; an error never carries key, ciphertext or decrypted content.
 */

/** Base class of all errors of this package; raised directly only for internal faults. */
export class CiphershiftError extends Error {
  static readonly code: string = "internal";

  /** The stable code, the same as in the server's problem+json answers. */
  get code(): string {
    return (this.constructor as typeof CiphershiftError).code;
  }

  override get name(): string {
    return `CiphershiftError[${this.code}]`; // minifiers rename classes
  }
}

/** Bytes that crossed a border are not what they should be. */
export class WireError extends CiphershiftError {
  static override readonly code: string = "wire";
}
/** More bytes arrived than can be needed. */
export class TooLargeError extends WireError {
  static override readonly code = "too_large";
}
/** The bytes are no container. */
export class BadMagicError extends WireError {
  static override readonly code = "bad_magic";
}
/** The bytes cannot be read: cut short, or a field holds what it may not. */
export class MalformedError extends WireError {
  static override readonly code = "malformed";
}
/** The container's format version is not one that this release reads. */
export class UnsupportedVersionError extends WireError {
  static override readonly code = "unsupported_version";
}
/** A container holds another kind of object than is wanted. */
export class WrongKindError extends WireError {
  static override readonly code = "wrong_kind";
}
/** The payload's length is not the one that its parameter set prescribes. */
export class WrongLengthError extends WireError {
  static override readonly code = "wrong_length";
}
/** The payload does not match its digest: it was damaged on the way. */
export class DigestMismatchError extends WireError {
  static override readonly code = "digest_mismatch";
}
/** The answer belongs to another request, or another version of the model made it. */
export class WrongAnswerError extends WireError {
  static override readonly code = "wrong_answer";
}

/** A parameter set, or an object made under it, is not acceptable. */
export class ParameterError extends CiphershiftError {
  static override readonly code: string = "invalid_params";
}
/** No parameter set is registered under this id. */
export class UnknownParamsError extends ParameterError {
  static override readonly code = "unknown_params";
}
/** The parameter set is weaker than 128 bits. */
export class InsecureParamsError extends ParameterError {
  static override readonly code = "insecure_params";
}
/** The server uses a kind of parameter set that this client was told not to accept. */
export class RefusedParamsError extends ParameterError {
  static override readonly code = "refused_params";
}
/** The object was made under another parameter set than the one in use. */
export class WrongParamsError extends ParameterError {
  static override readonly code = "wrong_params";
}
/** A value lies outside what the parameter set allows. */
export class NotConformantError extends ParameterError {
  static override readonly code = "not_conformant";
}

/** Keys and ciphertexts do not belong together. */
export class KeyMismatchError extends CiphershiftError {
  static override readonly code: string = "key_mismatch";
}
/** The object names another key bundle than the keys at hand, or the keys were erased. */
export class WrongKeyError extends KeyMismatchError {
  static override readonly code = "wrong_key";
}
/** The server holds no key bundle of this id. */
export class UnknownKeyError extends KeyMismatchError {
  static override readonly code = "unknown_key";
}
/** Secret keys were about to reach the server. */
export class SecretKeyOnServerError extends KeyMismatchError {
  static override readonly code = "secret_key_on_server";
}
/** A file of secret keys can be read by other users of the machine. */
export class ExposedKeyError extends KeyMismatchError {
  static override readonly code = "exposed_key";
}
/** The secret keys rest under a passphrase, and none was given. */
export class LockedKeyError extends KeyMismatchError {
  static override readonly code = "locked_key";
}
/** The passphrase is not the one that the secret keys rest under. */
export class WrongPassphraseError extends KeyMismatchError {
  static override readonly code = "wrong_passphrase";
}

/** A model is not well formed, or does not fit its input. */
export class ProgramError extends CiphershiftError {
  static override readonly code: string = "invalid_program";
}
/** The pixels do not have the shape that the model takes. */
export class BadShapeError extends ProgramError {
  static override readonly code = "bad_shape";
}
/** A value lies outside the levels that the model takes. */
export class OutOfLevelsError extends ProgramError {
  static override readonly code = "out_of_levels";
}
/** A layer cannot be evaluated. */
export class UnsupportedLayerError extends ProgramError {
  static override readonly code = "unsupported_layer";
}
/** A network's public part is not one that this client runs. */
export class BadStemError extends ProgramError {
  static override readonly code = "bad_stem";
}
/** A converted network does not compute what the module computes. */
export class NotEquivalentError extends ProgramError {
  static override readonly code = "not_equivalent";
}

/** The service cannot answer this request now, or not at all. */
export class ServiceError extends CiphershiftError {
  static override readonly code: string = "service";
}
/** A setting is impossible or not safe. */
export class ConfigurationError extends ServiceError {
  static override readonly code = "configuration";
}
/** The server has no room for keys or jobs. */
export class StorageFullError extends ServiceError {
  static override readonly code = "storage_full";
}
/** The client was closed: its keys are erased. */
export class ClosedError extends ServiceError {
  static override readonly code = "closed";
}
/** The request carries no API key that the server knows. */
export class UnauthorizedError extends ServiceError {
  static override readonly code = "unauthorized";
}
/** The API key lacks the scope that the request needs. */
export class ForbiddenError extends ServiceError {
  static override readonly code = "forbidden";
}
/** The server has no model of this name. */
export class UnknownModelError extends ServiceError {
  static override readonly code = "unknown_model";
}
/** The server has no job of this id, or this keystore did not submit it. */
export class UnknownJobError extends ServiceError {
  static override readonly code = "unknown_job";
}
/** The idempotency key was used before, for a request with another body. */
export class IdempotencyConflictError extends ServiceError {
  static override readonly code = "idempotency_conflict";
}
/** The job has no result yet. */
export class NotFinishedError extends ServiceError {
  static override readonly code = "not_finished";
}
/** The job was canceled before it had a result. */
export class CanceledError extends ServiceError {
  static override readonly code = "canceled";
}
/** The job's result was kept for its time and is gone. */
export class ExpiredError extends ServiceError {
  static override readonly code = "expired";
}
/** The tenant has used up its queries or its bytes of keys. */
export class QuotaExceededError extends ServiceError {
  static override readonly code = "quota_exceeded";
}
/** The queue is full: try again later. */
export class BusyError extends ServiceError {
  static override readonly code = "busy";
}
/** The work was not done within its deadline. */
export class DeadlineError extends ServiceError {
  static override readonly code = "deadline";
}
/** A worker process died under the request. */
export class WorkerLostError extends ServiceError {
  static override readonly code = "worker_lost";
}
/** The model was replaced after the job was accepted. */
export class ModelChangedError extends ServiceError {
  static override readonly code = "model_changed";
}
/** The server is starting or stopping. */
export class NotReadyError extends ServiceError {
  static override readonly code = "not_ready";
}
/** No server answered at this address. */
export class UnreachableError extends ServiceError {
  static override readonly code = "unreachable";
}
/** The server's certificate is not to be trusted. */
export class UntrustedServerError extends ServiceError {
  static override readonly code = "untrusted_server";
}
/** An API key, or keys in a browser, would have no protection: use https. */
export class InsecureTransportError extends ServiceError {
  static override readonly code = "insecure_transport";
}

/** Every class of the tree. */
export const ERRORS: readonly (typeof CiphershiftError)[] = [
  CiphershiftError, WireError, TooLargeError, BadMagicError, MalformedError, UnsupportedVersionError, WrongKindError, WrongLengthError,
  DigestMismatchError, WrongAnswerError, ParameterError, UnknownParamsError, InsecureParamsError, RefusedParamsError, WrongParamsError, NotConformantError,
  KeyMismatchError, WrongKeyError, UnknownKeyError, SecretKeyOnServerError, ExposedKeyError, LockedKeyError, WrongPassphraseError,
  ProgramError, BadShapeError, OutOfLevelsError, UnsupportedLayerError, BadStemError, NotEquivalentError, ServiceError, ConfigurationError, StorageFullError, ClosedError, UnauthorizedError,
  ForbiddenError, UnknownModelError, UnknownJobError, IdempotencyConflictError, NotFinishedError, CanceledError, ExpiredError,
  QuotaExceededError, BusyError, DeadlineError, WorkerLostError, ModelChangedError, NotReadyError, UnreachableError, UntrustedServerError,
  InsecureTransportError,
];

/** Returns the error that a stable code stands for; an unknown code gives the base class. */
export function fromCode(code: string, message: string): CiphershiftError {
  return new (ERRORS.find((known) => known.code === code) ?? CiphershiftError)(message);
}
