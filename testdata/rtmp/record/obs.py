#!/usr/bin/env python3
"""Records what OBS Studio sends when it publishes, or shows what it makes of a refusal.

    apt-get install --no-install-recommends obs-studio xvfb ffmpeg nginx libnginx-mod-rtmp libgl1-mesa-dri
    ./obs.py record ../obs-29.0-h264-aac.bin          # six seconds to nginx-rtmp, through a tee
    ./obs.py refuse NetStream.Publish.Denied "why"    # a server that refuses; prints OBS's log

OBS runs under Xvfb in a home directory of its own with a prepared profile and scene collection. Everything is on
loopback and on ports of the kernel's choice, and ends with the script.
"""

import json
import os
import pathlib
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

STREAM_KEY = "obs?token=abc"
VIDEO_KBIT, AUDIO_KBIT, STREAM_SECONDS = 250, 64, 6
NGINX_MODULE = "/usr/lib/nginx/modules/ngx_rtmp_module.so"


def profile(home: pathlib.Path, server_port: int, clip: pathlib.Path) -> None:
    """Writes the profile and the scene collection that OBS starts with: 640x360, x264, AAC, one media source."""
    root = home / ".config/obs-studio"
    (root / "basic/profiles/trace").mkdir(parents=True)
    (root / "basic/scenes").mkdir()
    (root / "global.ini").write_text(
        "[General]\nFirstRun=true\nEnableAutoUpdates=false\nLastVersion=486539266\n"
        "[Basic]\nProfile=trace\nProfileDir=trace\nSceneCollection=trace\nSceneCollectionFile=trace\n"
        "ConfigOnNewProfile=false\n"
    )
    (root / "basic/profiles/trace/basic.ini").write_text(
        "[General]\nName=trace\n"
        "[Output]\nMode=Advanced\nReconnect=false\n"
        f"[AdvOut]\nEncoder=obs_x264\nAudioEncoder=ffmpeg_aac\nTrackIndex=1\nTrack1Bitrate={AUDIO_KBIT}\n"
        "ApplyServiceSettings=false\n"
        "[Video]\nBaseCX=640\nBaseCY=360\nOutputCX=640\nOutputCY=360\nFPSType=0\nFPSCommon=30\n"
        "[Audio]\nSampleRate=48000\nChannelSetup=Stereo\n"
    )
    encoder = {"rate_control": "CBR", "bitrate": VIDEO_KBIT, "keyint_sec": 1, "preset": "veryfast", "profile": "high"}
    (root / "basic/profiles/trace/streamEncoder.json").write_text(json.dumps(encoder))
    service = {
        "type": "rtmp_custom",
        "settings": {"server": f"rtmp://127.0.0.1:{server_port}/live", "key": STREAM_KEY, "use_auth": False},
    }
    (root / "basic/profiles/trace/service.json").write_text(json.dumps(service))

    # OBS asks before it closes while it streams, so a script inside it ends the stream as its button would.
    stop = home / "stop.lua"
    stop.write_text(
        "obs = obslua\n"
        "function started(event)\n"
        "  if event == obs.OBS_FRONTEND_EVENT_STREAMING_STARTED then obs.timer_add(stop, "
        f"{STREAM_SECONDS * 1000}) end\n"
        "end\n"
        "function stop() obs.timer_remove(stop) obs.obs_frontend_streaming_stop() end\n"
        "function script_load(settings) obs.obs_frontend_add_event_callback(started) end\n"
    )
    media = {
        "name": "clip",
        "id": "ffmpeg_source",
        "settings": {"local_file": str(clip), "looping": True, "hw_decode": False},
    }
    scene = {"name": "scene", "id": "scene", "settings": {"items": [{"name": "clip", "id": 1, "visible": True}]}}
    collection = {
        "name": "trace",
        "current_scene": "scene",
        "current_program_scene": "scene",
        "scene_order": [{"name": "scene"}],
        "sources": [media, scene],
        "modules": {"scripts-tool": [{"path": str(stop), "settings": {}}]},
    }
    (root / "basic/scenes/trace.json").write_text(json.dumps(collection))


class Tee(threading.Thread):
    """Listens on a port of the kernel's choice and passes bytes both ways; keeps what came from the client."""

    def __init__(self, upstream_port: int):
        super().__init__(daemon=True)
        self.upstream_port = upstream_port
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.sent = bytearray()

    def run(self) -> None:
        client, _ = self.listener.accept()
        server = socket.create_connection(("127.0.0.1", self.upstream_port))
        replies = threading.Thread(target=self.copy, args=(server, client, None), daemon=True)
        replies.start()
        self.copy(client, server, self.sent)

    @staticmethod
    def copy(source: socket.socket, target: socket.socket, record: bytearray | None) -> None:
        try:
            while data := source.recv(65536):
                if record is not None:
                    record += data
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # The other side has closed: nothing is left to pass on.


def nginx(home: pathlib.Path) -> tuple[subprocess.Popen, int]:
    """Starts nginx-rtmp and waits until it accepts."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    config = home / "nginx.conf"
    config.write_text(
        f"load_module {NGINX_MODULE};\nworker_processes 1;\ndaemon off;\nmaster_process off;\npid {home}/nginx.pid;\n"
        f"error_log {home}/nginx.log info;\nevents {{ }}\n"
        f"rtmp {{ access_log off; server {{ listen 127.0.0.1:{port}; chunk_size 4096;\n"
        "application live { live on; } } }\n"
    )
    child = subprocess.Popen(["nginx", "-p", home, "-c", config, "-e", home / "nginx.log"])
    until(lambda: socket.create_connection(("127.0.0.1", port)).close() is None, "nginx-rtmp accepts")
    return child, port


def until(condition, what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if condition():
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise SystemExit(f"gave up after {seconds} s waiting until {what}")


class Refuser(threading.Thread):
    """An RTMP server that lets a client connect and answers its publish with one status of level "error".

    It knows the peer it is written for: OBS's librtmp sends chunks of 128 bytes until it announces another size, and
    the name of each command stands whole in its first chunk, so looking for the name finds the command.
    """

    def __init__(self, code: str, description: str):
        super().__init__(daemon=True)
        self.code, self.description = code, description
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]

    def run(self) -> None:
        client, _ = self.listener.accept()
        c0c1 = b""
        while len(c0c1) < 1537:
            c0c1 += client.recv(4096)
        client.sendall(b"\x03" + bytes(1536) + c0c1[1:1537])
        refusal = {"level": "error", "code": self.code, "description": self.description}
        connected = {"level": "status", "code": "NetConnection.Connect.Success", "description": "ok"}
        if self.code.startswith("NetConnection"):
            to_connect = command("_error", 1.0, {}, refusal)
        else:
            to_connect = command("_result", 1.0, {}, connected)
        answers = {
            b"connect": to_connect,
            b"createStream": command("_result", 4.0, None, 1.0),
            b"publish": command("onStatus", 0.0, None, refusal),
        }
        seen = b""
        while data := client.recv(65536):
            seen += data
            for name, answer in list(answers.items()):
                if b"\x02" + struct.pack(">H", len(name)) + name in seen:
                    client.sendall(answer)
                    del answers[name]
                    if b"error" in answer:
                        client.shutdown(socket.SHUT_WR)


def command(name: str, *values) -> bytes:
    body = amf0(name) + b"".join(amf0(value) for value in values)
    stream = 1 if name == "onStatus" else 0
    chunks = b"\xc3".join(body[at : at + 128] for at in range(0, len(body), 128))
    return b"\x03\0\0\0" + len(body).to_bytes(3) + b"\x14" + stream.to_bytes(4, "little") + chunks


def amf0(value) -> bytes:
    if value is None:
        return b"\x05"
    if isinstance(value, float):
        return b"\0" + struct.pack(">d", value)
    if isinstance(value, str):
        return b"\x02" + text(value)
    return b"\x03" + b"".join(text(key) + amf0(item) for key, item in value.items()) + b"\0\0\x09"


def text(value: str) -> bytes:
    return struct.pack(">H", len(value.encode())) + value.encode()


def obs_log(home: pathlib.Path) -> str:
    logs = sorted((home / ".config/obs-studio/logs").glob("*.txt"))
    return logs[-1].read_text(errors="replace") if logs else ""


def main() -> None:
    if len(sys.argv) < 3 or sys.argv[1] not in ("record", "refuse"):
        raise SystemExit(__doc__)
    children: list[subprocess.Popen] = []
    with tempfile.TemporaryDirectory() as folder:
        home = pathlib.Path(folder)
        clip = home / "clip.mkv"
        subprocess.run(
            ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc=size=640x360:rate=30", "-f", "lavfi", "-i",
             "sine=frequency=440:sample_rate=48000", "-t", "4", "-c:v", "ffv1", "-c:a", "pcm_s16le", clip],
            check=True,
        )  # fmt: skip
        try:
            if sys.argv[1] == "record":
                server, port = nginx(home)
                children.append(server)
                peer = Tee(port)
            else:
                peer = Refuser(sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else "the reason")
            peer.start()
            profile(home, peer.port, clip)
            runtime = home / "run"
            runtime.mkdir(mode=0o700)
            env = os.environ | {"HOME": folder, "XDG_RUNTIME_DIR": str(runtime), "LIBGL_ALWAYS_SOFTWARE": "1"}
            env.pop("XDG_CONFIG_HOME", None)
            display = subprocess.Popen(
                ["Xvfb", "-displayfd", "1", "-screen", "0", "1280x720x24", "-nolisten", "tcp"],
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            children.append(display)
            env["DISPLAY"] = ":" + display.stdout.readline().decode().strip()
            children.append(
                subprocess.Popen(
                    ["obs", "--multi", "--startstreaming", "--profile", "trace", "--collection", "trace"],
                    env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                )
            )  # fmt: skip
            until(lambda: "==== Streaming Stop" in obs_log(home), "OBS stops streaming")
            if sys.argv[1] == "record":
                pathlib.Path(sys.argv[2]).write_bytes(peer.sent)
                print(f"{len(peer.sent)} bytes")
            log = obs_log(home)
            print(log[log.index("[rtmp stream") : log.index("==== Streaming Stop")])
        except SystemExit:
            print(obs_log(home))
            raise
        finally:
            for child in reversed(children):
                # What OBS has open (a dialog, on a refusal) keeps it from ending on SIGTERM; the others clean up on it.
                child.send_signal(signal.SIGKILL if child.args[0] == "obs" else signal.SIGTERM)
                child.wait()


if __name__ == "__main__":
    main()
