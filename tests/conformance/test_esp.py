"""The ESP conformance suite, run on memory, folder and a real SMTP server."""

import socket

from aiosmtpd.controller import Controller

from penstock.adapters.esp.directory import DirectoryEsp
from penstock.adapters.esp.memory import MemoryEsp
from penstock.adapters.esp.smtp import SmtpEsp
from penstock.testing.conformance.esp import EspConformance, EspUnderTest


class TestMemoryEsp(EspConformance):
    def make(self, tmp_path):
        esp = MemoryEsp()
        return EspUnderTest(esp, lambda: [each.raw for each in esp.delivered])


class TestDirectoryEsp(EspConformance):
    def make(self, tmp_path):
        root = tmp_path / "out"
        return EspUnderTest(
            DirectoryEsp(root), lambda: [path.read_bytes() for path in sorted(root.glob("*.eml"))]
        )


class TestSmtpEsp(EspConformance):
    def make(self, tmp_path):
        inbox = []

        class Inbox:
            async def handle_DATA(self, server, session, envelope):  # noqa: N802
                inbox.append(envelope.original_content)
                return "250 taken"

        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        controller = Controller(Inbox(), hostname="127.0.0.1", port=port)
        controller.start()
        esp = SmtpEsp("127.0.0.1", port, tls="none", timeout_s=5, local_name="test")
        return EspUnderTest(esp, lambda: list(inbox), controller.stop)
