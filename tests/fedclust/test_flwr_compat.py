"""What is built past Flower's constructors is what they build."""

import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from fedclust.flwr_compat import contents_of, messages_to, replies_to, set_message_id, task_identity


@pytest.fixture(autouse=True)
def _identity():
    with task_identity(7, 1, 3):
        yield


def _about(message: Message) -> dict:
    """All metadata but the clock."""
    return {name: v for name, v in message.metadata.__dict__.items() if name not in ("_created_at", "_ttl")}


def _contents(n: int) -> list[RecordDict]:
    return [RecordDict({"settings": ConfigRecord({"i": i})}) for i in range(n)]


def test_messages_are_those_that_flower_makes():
    contents = _contents(3)
    made = messages_to([5, 9, 6], contents, "train", ttl=60.0, group_id="4")
    for node, content, message in zip([5, 9, 6], contents, made, strict=True):
        theirs = Message(content, node, "train", ttl=60.0, group_id="4")
        assert type(message) is Message and message.content is content and not message.has_error()
        assert _about(message) == _about(theirs) and message.metadata.ttl == 60.0
        assert 0 <= theirs.metadata.created_at - message.metadata.created_at < 60
    assert messages_to([], [], "train", ttl=60.0, group_id="4") == []


def test_messages_are_named_one_by_one():
    first, second = messages_to([5, 9], _contents(2), "train", ttl=60.0, group_id="4")
    set_message_id(first, "a")
    assert (first.metadata.message_id, second.metadata.message_id) == ("a", "")


def test_what_flower_refuses_is_refused():
    with pytest.raises(ValueError, match="message type"):
        messages_to([5], _contents(1), "no such thing", ttl=60.0, group_id="4")
    with pytest.raises(TypeError):
        messages_to([5], ["no content"], "train", ttl=60.0, group_id="4")


def test_replies_are_those_that_flower_makes():
    asked, contents = messages_to([5, 9], _contents(2), "train", ttl=60.0, group_id="4"), _contents(2)
    for i, message in enumerate(asked):
        set_message_id(message, f"m{i}")
    for message, content, reply in zip(asked, contents, replies_to(asked, contents), strict=True):
        theirs = Message(content, reply_to=message)
        assert type(reply) is Message and reply.content is content and _about(reply) == _about(theirs)
        ends = message.metadata.created_at + 60
        assert reply.metadata.created_at + reply.metadata.ttl == pytest.approx(ends, abs=1e-3)
        assert theirs.metadata.created_at + theirs.metadata.ttl == pytest.approx(ends, abs=1e-3)


def test_a_made_message_travels_like_any_other():
    [message] = messages_to([5], _contents(1), "train", ttl=60.0, group_id="4")
    children = {message.content.object_id: message.content}
    back = Message.inflate(message.deflate(), children)
    assert back.metadata == message.metadata and back.content == message.content


def test_contents_are_those_that_flower_makes():
    records = {"model-0": ArrayRecord(), "metrics": MetricRecord({"n": 3})}
    [content] = contents_of([records])
    assert content == RecordDict(records) and content.array_records == RecordDict(records).array_records
    content["more"] = MetricRecord({"a": 1.0})
    assert "more" not in records  # nothing is shared with the caller
    with pytest.raises(TypeError):
        content["more"] = 3
