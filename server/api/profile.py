"""The public profile of a model: what a client needs, and nothing about weights."""

from __future__ import annotations

from dataclasses import asdict

from ciphershift.he_layers.crypto.noise import lookup_error
from ciphershift.he_layers.crypto.security import security_bits
from ciphershift.he_layers.stem import MEANING
from ciphershift.protocol import schemas
from ciphershift.protocol.schemas import LayerProfile, RecommendedQuota, StemProfile
from ciphershift.server.repository import Model


class ModelProfile(schemas.ModelProfile):
    """What a client needs of a model, and what people want to know of it."""

    params: str
    lookup_error_4bit: float
    log2_failure: float | None
    accuracy_plain: float | None = None
    accuracy_encrypted: float | None = None
    recommended_quota: RecommendedQuota | None = None


def profile_of(model: Model, max_batch: int) -> ModelProfile:
    """Returns the profile of a model on a server that takes `max_batch` images in one request."""
    program = model.program
    return ModelProfile(
        model=program.name,
        version=program.version,
        program_digest=program.digest,
        profile=program.profile,
        params=model.params.name,
        params_id=model.params.id,
        security_bits=round(security_bits(model.params), 1),
        lookup_error_4bit=lookup_error(model.params),
        log2_failure=model.log2_failure,
        input_shape=program.input.shape,
        input_levels=program.input.levels,
        input_delta=program.input.delta,
        input_encoding=None
        if program.input.encoding is None
        else schemas.InputEncoding(**asdict(program.input.encoding)),
        input_sequences=program.input.sequences,
        classes=program.output.classes,
        outputs=None
        if program.output.parts is None
        else tuple(schemas.OutputProfile(**asdict(part)) for part in program.output.parts),
        turns_to_logits=program.turns_to_logits,
        logit_step=program.logit_step,
        output_function=program.output.function,
        output_refinement=program.output.refinement,
        bootstraps=program.lookups,
        layers=tuple(
            LayerProfile(name=stage.layer.name, kind=stage.layer.kind, lookups=stage.lookups)
            for stage in program.stages
        ),
        key_bytes=model.key_bytes,
        upload_bytes=model.upload_bytes,
        download_bytes=model.download_bytes,
        max_batch=max_batch,
        accuracy_plain=model.card.get("accuracy_quantised"),
        accuracy_encrypted=model.card.get("accuracy_simulated"),
        recommended_quota=model.quota,
        stem=StemProfile(meaning=MEANING, **program.stem.to_spec()) if program.stem else None,
    )
