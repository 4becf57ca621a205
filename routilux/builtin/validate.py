"""What fits a model, and what does not."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ValidationError

from ..errors import DeclarationError
from ..routine.declaration import Routine
from ..routine.event import Event
from .taking import check_name, taking


class Validate(Routine):
    """Emits what fits a pydantic model as ``valid``, and what does not as ``invalid``.

    ``valid`` has the model as its parameter ``emits``. ``invalid`` has ``data``, what did not fit, and ``errors``, a
    list of dicts with the keys ``loc`` (the place, as a tuple), ``msg`` and ``type``, as pydantic describes them.

    Args:
        model: the class of the model.
        of: the parameter that is to fit, and the others go along; by default the whole payload.
        emits: the parameter that the model becomes.
        options: those of the slot ``input``, such as ``concurrency``; see `Routine.define_slot`.

    Raises:
        DeclarationError: when it is no class of models, or an option is out of range.
    """

    valid = Event()
    invalid = Event()

    def __init__(self, model: type[BaseModel], *, of: str | None = None, emits: str = "value", **options: Any) -> None:
        super().__init__()
        if not isinstance(model, type) or not issubclass(model, BaseModel):
            raise DeclarationError(f"Validate: expected a class of pydantic models, not {model!r}")
        check_name(emits, "emits")
        known = Annotated[Any, (model,)]  # anything; the model is mentioned, so that its instances can be saved

        def act(value: Any, rest: dict[str, Any]) -> None:
            try:
                fitting = model.model_validate(value)
            except ValidationError as error:
                found = error.errors(include_url=False, include_context=False, include_input=False)
                self.invalid.emit(**{**rest, "data": value, "errors": [dict(each) for each in found]})
            else:
                self.valid.emit(**{**rest, emits: fitting})

        self.input = self.define_slot("input", handler=taking(of, known, act), **options)
