"""What an API says of itself on /metrics."""

from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families

from tests.support.api_client import ApiClient


async def read_metrics(api: ApiClient) -> Mapping[str, float]:
    """Every sample by its name; none of ours has labels."""
    answer = await api.call("GET", "/metrics")
    assert answer.status == 200, answer
    families = text_string_to_metric_families(answer.body.decode())
    return {sample.name: sample.value for family in families for sample in family.samples}
