"""The error tree: every mistake a caller can make, on either side of the wire.

CiphershiftError                internal
├─ WireError                  bytes that are not what they should be
│  ├─ TooLargeError           too_large
│  ├─ BadMagicError           bad_magic
│  ├─ MalformedError          malformed
│  ├─ UnsupportedVersionError unsupported_version
│  ├─ WrongKindError          wrong_kind
│  ├─ WrongLengthError        wrong_length
│  ├─ DigestMismatchError     digest_mismatch
│  └─ WrongAnswerError        wrong_answer
├─ ParameterError             invalid_params
│  ├─ UnknownParamsError      unknown_params
│  ├─ InsecureParamsError     insecure_params
│  ├─ RefusedParamsError      refused_params
│  ├─ WrongParamsError        wrong_params
│  └─ NotConformantError      not_conformant
├─ KeyMismatchError           key_mismatch
│  ├─ WrongKeyError           wrong_key
│  ├─ UnknownKeyError         unknown_key
│  ├─ SecretKeyOnServerError  secret_key_on_server
│  ├─ ExposedKeyError         exposed_key
│  ├─ LockedKeyError          locked_key
│  └─ WrongPassphraseError    wrong_passphrase
├─ ProgramError               invalid_program
│  ├─ BadShapeError           bad_shape
│  ├─ OutOfLevelsError        out_of_levels
│  ├─ UnsupportedLayerError   unsupported_layer
│  ├─ BadStemError            bad_stem
│  └─ NotEquivalentError      not_equivalent
├─ WorkshopError              workshop
│  ├─ UnreadableModuleError   unreadable_module
│  ├─ UnreadableDataError     unreadable_data
│  ├─ BadCalibrationError     bad_calibration
│  ├─ OverBudgetError         over_budget
│  └─ StaleCheckpointError    stale_checkpoint
└─ ServiceError               service
   ├─ ConfigurationError      configuration
   ├─ ClosedError             closed
   ├─ UnauthorizedError       unauthorized
   ├─ ForbiddenError          forbidden
   ├─ UnknownModelError       unknown_model
   ├─ UnknownJobError         unknown_job
   ├─ IdempotencyConflictError idempotency_conflict
   ├─ NotFinishedError        not_finished
   ├─ CanceledError           canceled
   ├─ ExpiredError            expired
   ├─ QuotaExceededError      quota_exceeded
   ├─ BusyError               busy
   ├─ DeadlineError           deadline
   ├─ WorkerLostError         worker_lost
   ├─ ModelChangedError       model_changed
   ├─ NotReadyError           not_ready
   ├─ StorageFullError        storage_full
   ├─ UnreachableError        unreachable
   ├─ UntrustedServerError    untrusted_server
   └─ InsecureTransportError  insecure_transport

Each class has one stable `code` (what travels in a problem+json answer) and the `http_status` it travels under. The server
turns a class into its code, the client turns the code back into the class, so both sides raise and catch the same types.
A message names the thing, the value and the limit; an error never carries key, ciphertext or decrypted content.
"""

from __future__ import annotations

from typing import ClassVar


class CiphershiftError(Exception):
    """Base class of all errors of this project; raised directly only for internal faults."""

    code: ClassVar[str] = "internal"
    http_status: ClassVar[int] = 500
    by_code: ClassVar[dict[str, type[CiphershiftError]]] = {}

    def __init_subclass__(cls) -> None:
        """Register the class under its code, which must be its own."""
        assert cls.code not in CiphershiftError.by_code, f"two errors share the code {cls.code}"
        CiphershiftError.by_code[cls.code] = cls

    @property
    def message(self) -> str:
        """The sentence that says what is wrong and what to change."""
        return str(self.args[0]) if self.args else (self.__doc__ or self.code)


CiphershiftError.by_code[CiphershiftError.code] = CiphershiftError


def from_code(code: str, message: str) -> CiphershiftError:
    """Returns the error that a stable code stands for; an unknown code gives the base class."""
    return CiphershiftError.by_code.get(code, CiphershiftError)(message)


class WireError(CiphershiftError):
    """Bytes that crossed a border are not what they should be."""

    code = "wire"
    http_status = 400


class TooLargeError(WireError):
    """More bytes arrived than the parameter set can need."""

    code = "too_large"
    http_status = 413


class BadMagicError(WireError):
    """The bytes do not begin with the container's magic: they are something else."""

    code = "bad_magic"


class MalformedError(WireError):
    """The bytes cannot be read: cut short, or a field holds what it may not."""

    code = "malformed"


class UnsupportedVersionError(WireError):
    """The container's format version is not one that this release reads."""

    code = "unsupported_version"


class WrongKindError(WireError):
    """A well-formed container holds another kind of object than is wanted here."""

    code = "wrong_kind"


class WrongLengthError(WireError):
    """The payload's length is not the one that its parameter set prescribes."""

    code = "wrong_length"


class DigestMismatchError(WireError):
    """The payload does not match its digest: it was damaged on the way."""

    code = "digest_mismatch"


class WrongAnswerError(WireError):
    """The answer belongs to another request, or was made by another version of the model, than was asked."""

    code = "wrong_answer"


class ParameterError(CiphershiftError):
    """A parameter set, or an object made under it, is not acceptable."""

    code = "invalid_params"
    http_status = 400


class UnknownParamsError(ParameterError):
    """No parameter set is registered under this name or id."""

    code = "unknown_params"


class InsecureParamsError(ParameterError):
    """The parameter set is weaker than 128 bits and may not be used here."""

    code = "insecure_params"


class RefusedParamsError(ParameterError):
    """The server uses a kind of parameter set that this client was told not to accept."""

    code = "refused_params"


class WrongParamsError(ParameterError):
    """The object was made under another parameter set than the one in use."""

    code = "wrong_params"


class NotConformantError(ParameterError):
    """The object was decoded, but a value lies outside what its parameter set allows."""

    code = "not_conformant"


class KeyMismatchError(CiphershiftError):
    """Keys and ciphertexts do not belong together."""

    code = "key_mismatch"
    http_status = 400


class WrongKeyError(KeyMismatchError):
    """The ciphertext names another key bundle than the request or the keys at hand."""

    code = "wrong_key"


class UnknownKeyError(KeyMismatchError):
    """The server holds no key bundle of this id: upload it first."""

    code = "unknown_key"
    http_status = 404


class SecretKeyOnServerError(KeyMismatchError):
    """Secret keys were about to reach the server; they must stay with the client."""

    code = "secret_key_on_server"


class ExposedKeyError(KeyMismatchError):
    """A file of secret keys can be read by other users of the machine."""

    code = "exposed_key"


class LockedKeyError(KeyMismatchError):
    """The secret keys rest under a passphrase, and none was given."""

    code = "locked_key"


class WrongPassphraseError(KeyMismatchError):
    """The passphrase is not the one that the secret keys rest under."""

    code = "wrong_passphrase"


class ProgramError(CiphershiftError):
    """A Program is not well formed, or does not fit its input or its parameter set."""

    code = "invalid_program"
    http_status = 422


class BadShapeError(ProgramError):
    """An array's shape is not the one that the model takes."""

    code = "bad_shape"


class OutOfLevelsError(ProgramError):
    """A value lies outside the integer levels that the model takes."""

    code = "out_of_levels"


class UnsupportedLayerError(ProgramError):
    """A layer is of a kind, or has an option, that cannot be evaluated."""

    code = "unsupported_layer"


class BadStemError(ProgramError):
    """A network's public part is not one that a client runs."""

    code = "bad_stem"


class NotEquivalentError(ProgramError):
    """A converted network does not compute what the module computes."""

    code = "not_equivalent"


class WorkshopError(CiphershiftError):
    """A file that conversion or training needs cannot be used."""

    code = "workshop"
    http_status = 400


class UnreadableModuleError(WorkshopError):
    """A torch module or its weights cannot be loaded."""

    code = "unreadable_module"


class UnreadableDataError(WorkshopError):
    """A data set cannot be found or read, or its bytes are not the expected ones."""

    code = "unreadable_data"


class BadCalibrationError(WorkshopError):
    """The calibration data are not such that a network could be scaled by them."""

    code = "bad_calibration"


class OverBudgetError(WorkshopError):
    """No conversion keeps to the seconds and the drop that were asked for."""

    code = "over_budget"


class StaleCheckpointError(WorkshopError):
    """A checkpoint is of another training than the one that would go on from it."""

    code = "stale_checkpoint"


class ServiceError(CiphershiftError):
    """The service cannot answer this request now, or not at all."""

    code = "service"
    http_status = 503


class ConfigurationError(ServiceError):
    """A setting, or what an operator asks for, is impossible or not safe."""

    code = "configuration"


class ClosedError(ServiceError):
    """The client was closed: its connections are gone and its keys are erased."""

    code = "closed"


class UnauthorizedError(ServiceError):
    """The request carries no API key that the server knows and that is still valid."""

    code = "unauthorized"
    http_status = 401


class ForbiddenError(ServiceError):
    """The API key is valid but lacks the scope that the request needs."""

    code = "forbidden"
    http_status = 403


class UnknownModelError(ServiceError):
    """The server has no model of this name."""

    code = "unknown_model"
    http_status = 404


class UnknownJobError(ServiceError):
    """The server has no job of this id."""

    code = "unknown_job"
    http_status = 404


class IdempotencyConflictError(ServiceError):
    """The idempotency key was used before, for a request with another body."""

    code = "idempotency_conflict"
    http_status = 409


class NotFinishedError(ServiceError):
    """The job has no result yet: wait for it, or follow its events."""

    code = "not_finished"
    http_status = 409


class CanceledError(ServiceError):
    """The job was canceled before it had a result."""

    code = "canceled"
    http_status = 409


class ExpiredError(ServiceError):
    """The job's result was kept for its time and is gone."""

    code = "expired"
    http_status = 410


class QuotaExceededError(ServiceError):
    """The tenant has used up its queries or its bytes of keys."""

    code = "quota_exceeded"
    http_status = 429

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        """Args: retry_after: seconds after which to ask again, where they are known."""
        super().__init__(message)
        self.retry_after = retry_after


class BusyError(ServiceError):
    """The queue is full: try again later."""

    code = "busy"
    http_status = 429


class DeadlineError(ServiceError):
    """The work was not done within its deadline."""

    code = "deadline"
    http_status = 504


class WorkerLostError(ServiceError):
    """A worker process died under the request; it may be sent again."""

    code = "worker_lost"


class ModelChangedError(ServiceError):
    """The model was replaced after the job was accepted; nothing was computed, and the images may be sent again."""

    code = "model_changed"
    http_status = 409


class NotReadyError(ServiceError):
    """The server is starting or stopping and takes no work."""

    code = "not_ready"


class StorageFullError(ServiceError):
    """The server's disk or database has no space left."""

    code = "storage_full"
    http_status = 507


class UnreachableError(ServiceError):
    """No server answered at this address."""

    code = "unreachable"


class UntrustedServerError(ServiceError):
    """The server's certificate was not issued by an authority that the client trusts."""

    code = "untrusted_server"


class InsecureTransportError(ServiceError):
    """An API key would cross a network unencrypted: use https."""

    code = "insecure_transport"
