#!/usr/bin/python3
"""A docker program without an engine: containers are processes in network namespaces that it makes, joined by a bridge.

It does what `hms` and the test of containers ask for, and takes the sidecar's command line, rights and readiness from the override as
they stand there. The Compose file is JSON; of the override it reads the form in which it is written. Run as root.
"""
import json, os, re, signal, subprocess, sys, time
from pathlib import Path

HERE = Path(__file__).resolve().parent / "engine"
STATE, EVENTS = HERE / "state.json", HERE / "events"
BRIDGE, NET = "hms-test", "10.77.0"


def sh(*words, **more):
    return subprocess.run(words, check=True, capture_output=True, text=True, **more).stdout


def load():
    return json.loads(STATE.read_text()) if STATE.exists() else {"networks": [], "containers": {}}


def save(state):
    HERE.mkdir(exist_ok=True)
    STATE.write_text(json.dumps(state))


def happened(action, service):
    with EVENTS.open("a") as events:
        events.write(json.dumps({"type": "container", "action": action, "service": service}) + "\n")


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def end(pid, patience=8.0):
    """SIGTERM, and SIGKILL if that does not help."""
    if not alive(pid):
        return
    os.kill(pid, signal.SIGTERM)
    until = time.monotonic() + patience
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.02)
    if alive(pid):
        os.kill(pid, signal.SIGKILL)


def start(words, log):
    """Starts what outlives this program."""
    with (HERE / f"{log}.log").open("ab") as out:
        return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True).pid


def sidecars(override):
    """What the override says of each sidecar."""
    found, name = {}, None
    for line in override.splitlines():
        if match := re.fullmatch(r"  ([a-z0-9-]+):", line):
            name = match[1]
            found[name] = {"command": [], "volumes": {}}
        elif name is None:
            continue
        elif match := re.fullmatch(r"      - (\".*\")", line):
            found[name]["command"].append(json.loads(match[1]).replace("$$", "$"))
        elif match := re.match(r"      - \{type: bind, source: (\"[^\"]*\"), target: ([^,]*),", line):
            found[name]["volumes"][match[2]] = json.loads(match[1])
        elif match := re.match(r"    healthcheck: \{test: (\[.*\]), interval", line):
            found[name]["test"] = [word.replace("$$", "$") for word in json.loads(match[1])[1:]]
        elif match := re.match(r"    entrypoint: (\[.*\])", line):
            found[name]["entrypoint"] = json.loads(match[1])
        elif match := re.match(r"    cap_add: \[(.*)\]", line):
            found[name]["rights"] = match[1].lower().split(", ")
    return {name: one for name, one in found.items() if one["command"]}


def network(name, number):
    """A namespace with one end of a cable, and the engine's resolver in it; its first process."""
    holder = start(["unshare", "--net", "sleep", "infinity"], name)
    while os.readlink(f"/proc/{holder}/ns/net") == os.readlink("/proc/self/ns/net"):
        time.sleep(0.005)
    sh("ip", "link", "add", f"v{number}", "type", "veth", "peer", "name", "eth0", "netns", str(holder))
    sh("ip", "link", "set", f"v{number}", "master", BRIDGE, "up")
    inside = ["nsenter", "--target", str(holder), "--net", "--"]
    for words in ["link set lo up", "link set eth0 up", f"addr add {NET}.{number}/24 dev eth0",
                  f"route add default via {NET}.1"]:
        sh(*inside, "ip", *words.split())
    # As the engine's own, it asks from inside, as root.
    resolver = start([*inside, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-hosts", "--no-resolv",
                      "--user=root", "--group=root", "--listen-address=127.0.0.11", "--bind-interfaces", "--pid-file=",
                      f"--server={NET}.1"], f"{name}-dns")
    return holder, resolver


def contained(container, words, volumes=(), rights=None):
    """The words that run others in a container."""
    (HERE / "resolv.conf").write_text("nameserver 127.0.0.11\noptions ndots:0\n")
    script = f"mount --bind {HERE}/resolv.conf /etc/resolv.conf; mount -t tmpfs tmpfs /run; "
    for target, source in volumes:
        script += f"mkdir -p {target}; mount --bind '{source}' {target}; "
    script += "exec \"$@\""
    if rights is not None:
        kept = ",".join("+" + right for right in rights)
        words = ["setpriv", f"--bounding-set=-all,{kept}", "--inh-caps=-all", "--no-new-privs", "--", *words]
    return ["nsenter", "--target", str(container["network"]), "--net", "--", "unshare", "--mount", "sh", "-c", script,
            "sh", *words]


def run_app(state, name, service, project):
    words = [word.replace("/app/", f"{project}/") for word in service["command"]]
    container = state["containers"][name]
    container["pid"] = start(contained(container, words), name)
    happened("start", name)


def up(files):
    project = Path(files[0]).parent
    services = json.loads(Path(files[0]).read_text())["services"]
    state = load()
    joined = sidecars(Path(files[1]).read_text())
    for name, sidecar in joined.items():
        if name in state["containers"]:
            continue
        number = len(state["containers"]) + 10
        holder, resolver = network(name, number)
        container = {"network": holder, "resolver": resolver, "address": f"{NET}.{number}"}
        proxy = sidecar["volumes"].pop(sidecar["entrypoint"][0])
        words = contained(container, [proxy, *sidecar["command"]], sidecar["volumes"].items(), sidecar["rights"])
        container["pid"] = start(words, name)
        state["containers"][name] = container
        save(state)
    for name, sidecar in joined.items():
        container = state["containers"][name]
        until = time.monotonic() + 30
        while subprocess.run(contained(container, sidecar["test"]), capture_output=True).returncode != 0:
            if time.monotonic() > until or not alive(container["pid"]):
                sys.exit(f"dependency failed to start: container {name} is unhealthy\n" + (HERE / f"{name}.log").read_text())
            time.sleep(0.05)
    for name, service in services.items():
        owner = state["containers"].get(f"{name}-hms")
        if owner and name not in state["containers"]:
            state["containers"][name] = {"network": owner["network"], "address": owner["address"]}
            run_app(state, name, service, project)
            save(state)


def down():
    state = load()
    containers = state["containers"]
    for name, container in sorted(containers.items(), key=lambda item: item[0].endswith("-hms")):
        end(container["pid"])
    for container in containers.values():
        for process in [container.get("resolver"), container["network"]]:
            if process:
                end(process)
    state["containers"] = {}
    save(state)


def stop(name):
    end(load()["containers"][name]["pid"])
    happened("die", name)
    happened("stop", name)


def follow():
    EVENTS.touch()
    with EVENTS.open() as events:
        events.seek(0, os.SEEK_END)
        while True:
            if line := events.readline():
                print(line, end="", flush=True)
            else:
                time.sleep(0.02)


def compose(words):
    files = []
    while words[0] in ("-f", "--ansi"):
        if words[0] == "-f":
            files.append(words[1])
        words = words[2:]
    match words:
        case ["version", "--short"]:
            print((HERE.parent / "version").read_text() if (HERE.parent / "version").exists() else "2.36.2")
        case ["up", "--detach", *_]:
            if (HERE.parent / "broken").exists():
                sys.exit("no space left on device")
            up(files)
        case ["logs", *_]:
            print("calc-svc-hms-1  | the last thing it said")
        case ["ps", *_]:
            for name, one in load()["containers"].items():
                running = alive(one["pid"])
                print(json.dumps({"Service": name, "ID": f"{name:0<64}", "Image": "none", "ExitCode": 0 if running else 137,
                                  "State": "running" if running else "exited"}))
        case ["stop", name]:
            stop(name)
        case ["start", name]:
            state = load()
            run_app(state, name, json.loads(Path(files[0]).read_text())["services"][name], Path(files[0]).parent)
            save(state)
        case ["events", "--json"]:
            follow()
        case ["down", *_]:
            down()
        case other:
            sys.exit(f"unknown command: compose {other}")


def main(words):
    match words:
        case ["compose", *rest]:
            compose(rest)
        case ["network", "inspect", "--format", _, name]:
            if name not in load()["networks"]:
                sys.exit(f"network {name} not found")
            print(f"{NET}.1")
        case ["network", "create", *_, name]:
            sh("ip", "link", "add", BRIDGE, "type", "bridge")
            sh("ip", "addr", "add", f"{NET}.1/24", "dev", BRIDGE)
            sh("ip", "link", "set", BRIDGE, "up")
            state = load()
            state["networks"].append(name)
            save(state)
        case ["network", "rm", name]:
            sh("ip", "link", "del", BRIDGE)
            state = load()
            state["networks"].remove(name)
            save(state)
        case ["exec", "-i", number, *command]:
            container = load()["containers"][number.rstrip("0")]
            words = contained(container, command)
            os.execvp(words[0], words)
        case ["stop", name]:
            stop(name)
        case other:
            sys.exit(f"unknown command: {other}")


main(sys.argv[1:])
