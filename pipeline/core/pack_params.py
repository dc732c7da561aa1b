"""The section ``pack`` of params.yaml: the packed size, and how sources store their images."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, StringConstraints, Tag, field_validator

from pipeline.core.labels import CHANNELS
from pipeline.core.model_params import Section

LONGEST_NAME = 100
"""Names of files may have 255 bytes, and names of models and sources are parts of them."""
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=LONGEST_NAME)]
Channel = Literal["green", "blue", "red", "yellow"]

TAG = "~"
"""How the tags of alternatives begin: pydantic adds them to the path of a key, and the file does not have them."""


class Percentile(Section):
    """A percentile of the values of a channel in all images of a source."""

    percentile: float = Field(gt=0, le=100, description="Share of the values that are not above it (percent).")


def _alternative(value: Any) -> str:
    if isinstance(value, (dict, Percentile)):
        return f"{TAG}percentile"
    return f"{TAG}text" if isinstance(value, str) else f"{TAG}number"


White = Annotated[
    Annotated[Literal["full"], Tag(f"{TAG}text")]
    | Annotated[int, Field(ge=1, le=65535), Tag(f"{TAG}number")]
    | Annotated[Percentile, Tag(f"{TAG}percentile")],
    Discriminator(_alternative),
]
"""The 16-bit value that becomes white."""


class ChannelScaling(Section):
    """The 16-bit value of each channel that becomes white: full (65535), a number, or a percentile of the source."""

    green: White
    blue: White
    red: White
    yellow: White


class Pack(Section):
    """The packed array, and how sources store their images."""

    size: int = Field(ge=32, description="Side of the packed images (pixels); images of other sizes are resized.")
    scaling: dict[Name, ChannelScaling] = Field(
        description="Sources whose images have 16 bits, and for each channel the value that becomes white (255): full "
        "(65535), a number such as 4095, or {percentile: P} of the channel's values in all images of the source. "
        "Larger values are white too, smaller ones in proportion. 16-bit images of other sources are refused."
    )
    planes: dict[Name, tuple[Channel, ...]] = Field(
        description="Sources in which a sample is one TIFF, ID.tif, with four pages or planes: the channels in their "
        "order, such as [blue, green, red, yellow]. Elsewhere, each channel is a file."
    )

    @field_validator("planes")
    @classmethod
    def _each_channel_once(cls, planes: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        for source, order in planes.items():
            if sorted(order) != sorted(CHANNELS):
                raise ValueError(f"{source}: name each of {', '.join(CHANNELS)} once")
        return planes
