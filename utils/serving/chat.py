r"""The chat in the terminal: streamed answers, history, a few commands.

Answers go to stdout and everything else to stderr, so that it works in a pipe:
`printf 'hi\n/exit\n' | make serve` prints the answer and nothing more.
Knows nothing about HTTP.
"""

import re
import sys
from collections.abc import Callable

from utils.chat.templates import Message
from utils.config.serve import ServeConfig
from utils.errors import LumiError
from utils.generation.engine import Generated, Stream, answer_stream
from utils.generation.prompts import text_prompt
from utils.model.checkpoints import LoadedModel
from utils.serving.model import can_chat, describe, sampling_of

HELP = """\
/help                  this list
/reset                 forget the conversation
/system [TEXT]         show or set the system message (starts a new conversation)
/params [NAME VALUE]   show or set temperature, top_p, top_k, max_new_tokens, seed
/exit                  leave (also Ctrl-D); Ctrl-C stops an answer"""
PARAMETERS = ("temperature", "top_p", "top_k", "max_new_tokens", "seed")
CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""What a terminal could take for a command, should the model write it."""


class Chat:
    """One conversation with a model; a base model continues each line instead."""

    def __init__(self, loaded: LoadedModel, cfg: ServeConfig) -> None:
        self.loaded = loaded
        self.cfg = cfg
        self.messages: list[Message] = []
        self.on_terminal = sys.stdin.isatty() and sys.stdout.isatty()
        self._commands: dict[str, Callable[[str], None]] = {
            "/help": lambda _: note(HELP),
            "/reset": self._reset,
            "/system": self._system,
            "/params": self._params,
        }
        self._start()

    def run(self) -> None:
        """Talk until /exit, the end of the input, or Ctrl-C at the prompt."""
        note(describe(self.loaded))
        note("/help lists the commands, /exit leaves, Ctrl-C stops an answer")
        while (line := self._read()) is not None:
            command, _, rest = line.strip().partition(" ")
            if command == "/exit":
                return
            if command.startswith("/"):
                self._command(command, rest.strip())
            elif command:
                self._say(line.strip())

    def _read(self) -> str | None:
        """Return the next line, or None at the end of the input."""
        try:
            if self.on_terminal:
                return input("> ")
            return sys.stdin.readline() or None
        except (EOFError, KeyboardInterrupt):
            note("")
            return None

    def _command(self, command: str, rest: str) -> None:
        if command in self._commands:
            self._commands[command](rest)
        else:
            note(f"unknown command {command}: /help lists them")

    def _say(self, text: str) -> None:
        """Send one message and write the answer as it comes."""
        self.messages.append({"role": "user", "content": text})
        try:
            pieces = self._stream(text)
        except LumiError as error:
            self.messages.pop()
            note(str(error))
            return
        answer = self._write(pieces)
        self.messages.append({"role": "assistant", "content": answer.text})

    def _stream(self, text: str) -> Stream:
        settings = sampling_of(self.cfg)
        if not can_chat(self.loaded):
            return Stream(self.loaded, text_prompt(self.loaded, text), settings)
        pieces = answer_stream(self.loaded, self.messages, settings)
        if pieces.left_out:
            # They do not come back: the next turn begins where this one does.
            head = int(self.messages[0]["role"] == "system")
            del self.messages[head : head + pieces.left_out]
            note(
                f"(the oldest {pieces.left_out} messages no longer fit into the context: left out)"
            )
        return pieces

    def _write(self, pieces: Stream) -> Generated:
        """Write an answer piece by piece; Ctrl-C ends it where it is."""
        try:
            for piece in pieces:
                sys.stdout.write(self._printable(piece))
                sys.stdout.flush()
            remark = "" if pieces.result.stopped else self._cut_off()
        except KeyboardInterrupt:
            pieces.close()
            remark = "(stopped)"
        sys.stdout.write("\n")
        sys.stdout.flush()
        if remark:
            note(remark)
        return pieces.result

    def _cut_off(self) -> str:
        if not can_chat(self.loaded):
            return ""
        longest = self.cfg.max_new_tokens
        return f"(cut off after {longest} tokens; /params max_new_tokens {2 * longest} allows more)"

    def _printable(self, text: str) -> str:
        return CONTROL_CHARACTERS.sub("\ufffd", text) if self.on_terminal else text

    def _start(self) -> None:
        system = self.cfg.system_prompt
        self.messages = [{"role": "system", "content": system}] if system else []

    def _reset(self, _: str) -> None:
        self._start()
        note("new conversation")

    def _system(self, text: str) -> None:
        if text:
            self.cfg = self.cfg.model_copy(update={"system_prompt": text})
            self._start()
            note("system message set, new conversation")
        else:
            note(self.cfg.system_prompt or "no system message: /system TEXT sets one")

    def _params(self, rest: str) -> None:
        name, _, value = rest.partition(" ")
        if name and (name not in PARAMETERS or not value.strip()):
            note(f"usage: /params NAME VALUE, with NAME one of {', '.join(PARAMETERS)}")
            return
        if name:
            self._set(name, value.strip())
        note(", ".join(f"{key} {getattr(self.cfg, key)}" for key in PARAMETERS))

    def _set(self, name: str, value: str) -> None:
        new = None if value.lower() == "none" else value
        try:
            self.cfg = ServeConfig.build({**self.cfg.model_dump(), name: new}, "value")
        except LumiError as error:
            note(str(error))


def note(text: str) -> None:
    """Write a line that is no answer to stderr."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def run_chat(loaded: LoadedModel, cfg: ServeConfig) -> None:
    """Run the chat on this process's stdin and stdout."""
    for channel in (sys.stdin, sys.stdout, sys.stderr):
        channel.reconfigure(errors="replace")  # pyright: ignore[reportAttributeAccessIssue]
    if sys.stdin.isatty():
        import readline  # noqa: F401  (gives input() a history and line editing)
    Chat(loaded, cfg).run()
