"""The rig's commands."""

import argparse
import sys
from pathlib import Path

from . import cluster, containers, drift, gateway, images, mlflow, python, servers
from .paths import BIN
from .shell import RigError, say
from .tier import TIERS, Tier


def main(words: list[str]) -> int:
    arguments = parser().parse_args(words)
    try:
        return arguments.command(arguments) or 0
    except RigError as error:
        print(f"rig: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def parser() -> argparse.ArgumentParser:
    main = argparse.ArgumentParser(prog="rig", description="A real Kubernetes for tests and demo, without Docker.")
    commands = main.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run, help: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=help, description=help)
        added.set_defaults(command=run)
        return added

    add = command("up", up, "bring a tier up; does nothing if it is up and healthy")
    add.add_argument("tier", choices=TIERS, help="full: real pods on a real node; api: control plane, simulated pods")
    add = command("down", down, "take a tier down and leave the machine as it was")
    add.add_argument("tier", nargs="?", default="all", choices=[*TIERS, "all"])
    command("status", status, "how the tiers are")
    add = command("kubeconfig", kubeconfig, "print the path of a tier's kubeconfig")
    add.add_argument("tier", choices=TIERS)
    add = command("images", build_images, "build MLflow's and the serving image; import them into the full tier if it is up")
    add.add_argument("--gateway", action="store_true", help="and those of the Gateway")
    add = command("image", operator_image, "wrap a static operator binary as an image; prints its name")
    add.add_argument("operator", choices=["operator"])
    add.add_argument("binary", type=Path)
    add.add_argument("--tag", help="default: the first 12 digits of the binary's sha256")
    add = command("mlflow-venv", mlflow_venv, "install MLflow for the host, as .cluster/bin/mlflow and python-mlflow")
    add.add_argument("--server", choices=servers.SERVERS, action="append", default=[], help="and this server's release")
    command("drift-venv", drift_venv, "install the packages of the drift sample for the host, as .cluster/bin/python-drift")
    add = command("with-mlflow", with_mlflow, "run a command beside an MLflow server, which its environment describes")
    add.add_argument("--server", choices=servers.SERVERS, default="newest", help="default: newest")
    add.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND")
    add = command("mlflow-serve", mlflow_serve, "run an MLflow server; prints as JSON how to reach it once it is up")
    add.add_argument("server", choices=servers.SERVERS)
    add.add_argument("port", type=int)
    command("mlflow-servers", mlflow_servers, "print the names of the servers")
    command("mlflow-up", mlflow_up, "start MLflow in the cluster (KUBECONFIG's, or else the full tier)")
    command("models", models, "train the models and register them with the cluster's MLflow")
    add = command("gateway-crds", gateway_crds, "install the CRDs of the Gateway API in a tier")
    add.add_argument("tier", choices=TIERS)
    command("gateway-up", gateway_up, "start Envoy Gateway and a Gateway in the cluster (KUBECONFIG's, or the full tier)")
    command("path", path, "print the folder with kubectl, helm and the other tools, to put on PATH")
    return main


def up(arguments: argparse.Namespace) -> None:
    cluster.up(TIERS[arguments.tier])


def down(arguments: argparse.Namespace) -> None:
    for tier in chosen(arguments.tier):
        cluster.down(tier)


def status(_: argparse.Namespace) -> None:
    for tier in TIERS.values():
        print(f"{tier.name:5} {cluster.status(tier)}")


def kubeconfig(arguments: argparse.Namespace) -> None:
    print(TIERS[arguments.tier].kubeconfig)


def build_images(arguments: argparse.Namespace) -> None:
    gateways = [images.envoy_gateway(), images.envoy()] if arguments.gateway else []
    for image in (images.serving(), images.mlflow(), *gateways):
        containers.import_if_up(image)
        print(image.name)


def operator_image(arguments: argparse.Namespace) -> None:
    image = images.operator(arguments.binary, arguments.tag)
    containers.import_if_up(image)
    print(image.name)


def mlflow_venv(arguments: argparse.Namespace) -> None:
    python.link_mlflow()
    for name in arguments.server:
        servers.python_of(servers.SERVERS[name])
    say(f"MLflow is installed: {BIN}/mlflow, and its Python: {BIN}/python-mlflow")


def drift_venv(_: argparse.Namespace) -> None:
    drift.link()
    say(f"the packages of the drift sample are installed: {BIN}/python-drift")


def with_mlflow(arguments: argparse.Namespace) -> int:
    return servers.run_with(servers.SERVERS[arguments.server], arguments.words)


def mlflow_serve(arguments: argparse.Namespace) -> None:
    servers.serve(servers.SERVERS[arguments.server], arguments.port)


def mlflow_servers(_: argparse.Namespace) -> None:
    print("\n".join(servers.SERVERS))


def mlflow_up(_: argparse.Namespace) -> None:
    mlflow.up()


def models(_: argparse.Namespace) -> None:
    mlflow.train_models()


def gateway_crds(arguments: argparse.Namespace) -> None:
    gateway.install_crds(TIERS[arguments.tier])


def gateway_up(_: argparse.Namespace) -> None:
    gateway.up()


def path(_: argparse.Namespace) -> None:
    print(BIN)


def chosen(name: str) -> list[Tier]:
    return list(TIERS.values()) if name == "all" else [TIERS[name]]
