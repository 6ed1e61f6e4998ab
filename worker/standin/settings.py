"""What an operator may set about the stand-in."""

from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from worker.standin.directive import MAX_TOKENS


class StandinSettings(BaseSettings):
    """Read from the environment, prefix `STANDIN_`; a directive in a prompt overrides the rest."""

    model_config = SettingsConfigDict(env_prefix="STANDIN_", frozen=True)

    host: Annotated[
        str,
        Field(description="Address to listen on. Beyond loopback anybody may have answers."),
    ] = "127.0.0.1"
    port: Annotated[
        int,
        Field(ge=0, le=65535, description="Port to listen on; 0 takes a free one."),
    ] = 8001
    tokens_per_second: Annotated[
        float,
        Field(
            ge=0,
            description="Pace of an answer whose prompt names none. Too low and answers outlast"
            " their time-outs, too high and nobody sees them grow; 0 is as fast as possible.",
        ),
    ] = 40
    tokens: Annotated[
        int,
        Field(
            ge=0,
            le=MAX_TOKENS,
            description="Length of an answer whose prompt names none, in tokens. Too small and"
            " there is no time to disconnect in, too large and a demo takes for ever.",
        ),
    ] = 240
