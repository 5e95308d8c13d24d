"""An ESP that writes each email to a folder as an `.eml` file, which any mail program opens."""

import os
import re
from email.message import EmailMessage
from pathlib import Path
from typing import Final

from penstock.core.errors import Unavailable
from penstock.ports.esp import HandOver

NAME_CHARS_MAX: Final = 180


class DirectoryEsp:
    """Writes emails as files; implements `penstock.ports.esp.Esp`.

    A file is named for its Message-ID, so that the same email handed over twice is one file. It is
    there whole or not at all: written under another name, made durable, then renamed. Its first two
    headers are the envelope, `X-Envelope-From` and `X-Envelope-To`.
    """

    def __init__(self, root: Path) -> None:
        """Write into a folder, which is made when the first email is written."""
        self._root = root

    def send(self, message: EmailMessage, *, sender: str, recipient: str) -> HandOver:
        """Write one message; the detail is the file's name.

        Raises:
            Unavailable: The folder cannot be written; no file is there (E406).
        """
        name = file_name(str(message["Message-ID"] or ""))
        body = message.as_bytes(policy=message.policy.clone(linesep="\r\n"))
        envelope = (
            f"X-Envelope-From: {_one_line(sender)}\r\nX-Envelope-To: {_one_line(recipient)}\r\n"
        )
        try:
            self._write(name, envelope.encode() + body)
        except OSError as error:
            raise Unavailable(
                "E406", f"an email could not be written to the folder: {os.strerror(error.errno or 0)}",
                fix="check that the folder exists, may be written and has space",
            ) from error  # fmt: skip
        return HandOver("accepted", name)

    def close(self) -> None:
        """Do nothing: no file is kept open."""

    def _write(self, name: str, raw: bytes) -> None:
        self._root.mkdir(parents=True, exist_ok=True)
        temporary = self._root / f".{name}.part"
        try:
            with temporary.open("wb") as file:
                file.write(raw)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._root / name)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise


def file_name(message_id: str) -> str:
    """Return the name of a message's file: its Message-ID without what file systems dislike."""
    stem = re.sub(r"[^A-Za-z0-9@._+-]", "_", message_id.strip().strip("<>"))[:NAME_CHARS_MAX]
    assert stem.strip("._"), "an email has a Message-ID"
    return f"{stem.lstrip('.')}.eml"


def _one_line(address: str) -> str:
    return re.sub(r"[\x00-\x1f\x7f]", "", address)
