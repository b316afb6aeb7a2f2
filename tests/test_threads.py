"""Threads follow what a process may use."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_arc.environment import SPINS, available_cpus, configure_threads

COUNT = "import lightning_arc, torch; print(torch.get_num_threads())"


def threads_of(environment: dict[str, str], cpus: set[int]) -> int:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("OMP_")}
    done = subprocess.run(
        [sys.executable, "-c", f"import os; os.sched_setaffinity(0, {cpus}); {COUNT}"],
        env=kept | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


def write_quota(folder: Path, version: int, quota: str) -> Path:
    if version == 2:
        (folder / "cpu.max").write_text(f"{quota if quota != '-1' else 'max'} 100000\n")
    else:
        (folder / "cpu").mkdir()
        (folder / "cpu" / "cpu.cfs_quota_us").write_text(f"{quota}\n")
        (folder / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    return folder


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no CPU affinity")
def test_torch_computes_on_the_cpus_of_the_affinity_and_omp_num_threads_wins():
    cpus = os.sched_getaffinity(0)
    if len(cpus) < 2:
        pytest.skip("needs two CPUs")
    assert threads_of({}, {min(cpus)}) == 1
    assert threads_of({}, set(sorted(cpus)[:2])) == 2
    assert threads_of({"OMP_NUM_THREADS": "1"}, cpus) == 1


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(("quota", "threads"), [("50000", "1"), ("100000", "1")])
def test_a_containers_quota_bounds_the_threads(tmp_path, version, quota, threads):
    environment: dict[str, str] = {}
    configure_threads(environment, write_quota(tmp_path, version, quota))
    assert environment["OMP_NUM_THREADS"] == threads


@pytest.mark.parametrize("version", [1, 2])
def test_a_quota_is_rounded_up_and_never_beyond_the_affinity(tmp_path, version, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    write_quota(tmp_path, version, "250000")
    assert available_cpus(tmp_path) == 3
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    assert available_cpus(tmp_path) == 2


@pytest.mark.parametrize("version", [1, 2])
def test_without_a_quota_the_number_of_threads_is_left_to_openmp(tmp_path, version):
    environment: dict[str, str] = {}
    configure_threads(environment, write_quota(tmp_path, version, "-1"))
    assert environment == {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": str(SPINS)}
    assert available_cpus(tmp_path) == len(os.sched_getaffinity(0))


@pytest.mark.parametrize("given", [{"OMP_WAIT_POLICY": "ACTIVE"}, {"OMP_WAIT_POLICY": "PASSIVE"}])
def test_what_a_person_set_stays(tmp_path, given):
    environment = given | {"OMP_NUM_THREADS": "5"}
    configure_threads(environment, write_quota(tmp_path, 2, "100000"))
    assert environment == given | {"OMP_NUM_THREADS": "5"}


def test_a_number_of_spins_that_a_person_set_stays(tmp_path):
    environment = {"GOMP_SPINCOUNT": "7"}
    configure_threads(environment, write_quota(tmp_path, 2, "-1"))
    assert environment == {"GOMP_SPINCOUNT": "7", "OMP_WAIT_POLICY": "PASSIVE"}


def test_importing_the_package_sets_threads_before_torch_is_loaded(repo_root):
    code = "import os, sys, lightning_arc; print('torch' in sys.modules, os.environ['OMP_WAIT_POLICY'])"
    kept = {k: v for k, v in os.environ.items() if not k.startswith("OMP_")}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=repo_root, env=kept, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "PASSIVE"]
