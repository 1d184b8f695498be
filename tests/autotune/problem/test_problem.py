"""Loading problems: what the user names, what they get, and one clear line for everything that can be wrong."""

import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from autotune import AutotuneError
from autotune.problem.loading import load_problem
from tests.conftest import REPOSITORY

DECAY = REPOSITORY / "tests/assets/problems/decay.py"


def write(folder: Path, text: str, name: str = "my_model.py") -> Path:
    """Write a problem file."""
    path = folder / name
    path.write_text(textwrap.dedent(text))
    return path


GOOD = """
    def make(*, adjoint, horizon=1, tolerance=0.1, extra=2):
        return (lambda x: x), ([adjoint, horizon, tolerance, extra],)
    def helper():
        pass
"""


def test_a_factory_gets_what_it_takes_and_only_that(tmp_path):
    """Horizon keeps its type, absent values fall to the factory's defaults, --set values arrive by name."""
    path = write(tmp_path, GOOD)
    problem = load_problem(f"{path}:make", set_values={"extra": "five"})
    assert problem.name == "my_model:make"
    assert problem.make("a", 100).args == (["a", 100, 0.1, "five"],)
    assert type(problem.make("a", 100.0).args[0][1]) is float
    assert problem.make("a", tolerance=1e-3).args == (["a", 1, 1e-3, "five"],)


def test_a_factory_with_keyword_rest_takes_every_set_value(tmp_path):
    """`**kwargs` means that any --set key is welcome."""
    path = write(tmp_path, "def make(**given):\n    return (lambda x: x), (given,)\n")
    problem = load_problem(f"{path}:make", set_values={"anything": True})
    assert problem.make("a", 3).args == ({"adjoint": "a", "horizon": 3, "anything": True},)


def test_a_module_is_found_in_the_working_directory(tmp_path, monkeypatch):
    """`package.module:factory` works from the folder where the user stands."""
    (tmp_path / "pack_for_test").mkdir()
    write(tmp_path / "pack_for_test", GOOD, "inner.py")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    problem = load_problem("pack_for_test.inner:make")
    assert problem.name == "inner:make"
    assert problem.worker_spec() == "pack_for_test.inner:make"


def test_shapes_without_data_make_a_call_abstract(tmp_path):
    """A single leaf without data means that nothing can be run."""
    text = """
        import jax, jax.numpy as jnp
        def make(*, adjoint, abstract):
            x = jax.ShapeDtypeStruct((3,), jnp.float32) if abstract else jnp.ones(3)
            return (lambda p: p), ({"x": x, "f": jnp.tanh},)
    """
    path = write(tmp_path, text)
    assert load_problem(f"{path}:make", set_values={"abstract": True}).make(None).abstract
    assert not load_problem(f"{path}:make", set_values={"abstract": False}).make(None).abstract


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("{folder}/absent.py:make", ["absent.py does not exist", "my_model.py"]),
        ("{folder}/my_model.py", ["names no factory", "my_model.py:make", "it offers: make, helper"]),
        ("{folder}/my_model.py:absent", ["has no `absent`", "it offers: make, helper"]),
        ("{folder}:make", ["there is no module"]),
        ("no_such_module_here:make", ["there is no module 'no_such_module_here'", "FILE.py:factory"]),
        ("nonsense", ["'nonsense' is not a problem", "FILE.py:factory"]),
    ],
)
def test_what_cannot_be_found_is_said_in_one_line(tmp_path, spec, said):
    """The text names what was asked, what is there, and how to write it."""
    write(tmp_path, GOOD)
    with pytest.raises(AutotuneError) as caught:
        load_problem(spec.format(folder=tmp_path))
    assert "\n" not in str(caught.value)
    for part in said:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("text", "asked", "said"),
    [
        ("def make(*, adjoint): return 1, 2, 3", {}, ["must return (fn, args)", "tuple of 3"]),
        ("def make(*, adjoint): return None", {}, ["returned a NoneType"]),
        ("def make(*, adjoint): return 1, ()", {}, ["first item is a int", "cannot be called"]),
        ("def make(*, adjoint): return print, 3", {}, ["second item is a int", "(x,)"]),
        ("def make(*, adjoint): return print, ()", {"horizon": 3}, ["takes no parameter `horizon`", "--horizon"]),
        ("def make(*, adjoint, horizon): return print, ()", {}, ["needs `horizon`", "--horizon VALUE"]),
        ("def make(*, adjoint, size): return print, ()", {}, ["needs `size`", "--set size=VALUE"]),
    ],
)
def test_a_factory_that_is_none_is_said_in_one_line(tmp_path, text, asked, said):
    """What the factory returned or lacks stands in the error, with the way out."""
    path = write(tmp_path, text)
    with pytest.raises(AutotuneError) as caught:
        load_problem(f"{path}:make").make("adjoint", **asked)
    assert "\n" not in str(caught.value)
    for part in said:
        assert part in str(caught.value)


def test_a_factory_without_adjoint_is_refused_when_loaded(tmp_path):
    """Nothing can be tuned where the adjoint has no way in."""
    path = write(tmp_path, "def make(horizon): return print, ()")
    with pytest.raises(AutotuneError, match=r"takes no parameter `adjoint` \(it takes horizon\)"):
        load_problem(f"{path}:make")


@pytest.mark.parametrize(("key", "said"), [("width", "takes no parameter `width`"), ("horizon", "use --horizon")])
def test_an_unknown_set_key_is_refused_when_loaded(tmp_path, key, said):
    """A misspelt --set key must not silently measure the default; a swept one has an option of its own."""
    path = write(tmp_path, GOOD)
    with pytest.raises(AutotuneError, match=said):
        load_problem(f"{path}:make", set_values={key: 3})


def test_a_raising_factory_shows_one_line_and_the_users_frames_only():
    """Frames of ours and of libraries tell the user nothing about their mistake."""
    with pytest.raises(AutotuneError) as caught:
        load_problem(f"{DECAY}:make_raising").make(None)
    assert str(caught.value) == "decay:make_raising raised: KeyError: 'no data for horizon 1'"
    assert len(caught.value.frames) == 2
    assert all(str(DECAY) in frame for frame in caught.value.frames)
    assert "in _inner" in caught.value.frames[1]


def test_a_raising_library_call_shows_the_users_line_last(tmp_path):
    """An error deep inside JAX is reported at the line of the user's that led there."""
    path = write(tmp_path, "import jax.numpy as jnp\ndef make(*, adjoint):\n    return jnp.ones(3) @ jnp.ones(4), ()\n")
    with pytest.raises(AutotuneError) as caught:
        load_problem(f"{path}:make").make(None)
    assert len(caught.value.frames) == 1
    assert ":3 in make" in caught.value.frames[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [("def make(:\n", "SyntaxError"), ("import no_such_thing\n", "ModuleNotFoundError"), ("exit(3)\n", "SystemExit")],
)
def test_a_file_that_cannot_be_imported_is_an_error_of_the_users(tmp_path, text, said):
    """Import-time failures, even a script that exits, do not end ckpt-tune."""
    path = write(tmp_path, text)
    with pytest.raises(AutotuneError, match="raised while it was imported") as caught:
        load_problem(f"{path}:make")
    assert said in str(caught.value)
    assert str(path) in caught.value.frames[0]


@pytest.mark.parametrize("name", ["adjoint.py", "profiles/stuff.py"])
def test_a_neighbour_that_shadows_our_packages_is_named(tmp_path, name):
    """`import adjoint` in the user's file would get ours; guessing which was meant helps nobody."""
    (tmp_path / name).parent.mkdir(exist_ok=True)
    write(tmp_path, "", name)
    package = name.split("/")[0].removesuffix(".py")
    path = write(tmp_path, f"import {package}\n" + textwrap.dedent(GOOD))
    with pytest.raises(AutotuneError, match="rename yours") as caught:
        load_problem(f"{path}:make")
    assert str(tmp_path / name.split("/")[0]) in str(caught.value)


def test_a_neighbour_of_our_name_that_is_not_imported_does_no_harm(tmp_path):
    """A folder may well be called profiles; ours are found first either way."""
    write(tmp_path, "raise RuntimeError", "adjoint.py")
    assert load_problem(f"{write(tmp_path, GOOD)}:make").make("a").args


def test_ours_are_found_although_the_working_directory_shadows_them(tmp_path):
    """A user's `profiles.py` where they stand is named, instead of an ImportError from our inside."""
    write(tmp_path, "", "profiles.py")
    path = write(tmp_path, GOOD)
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import autotune.problem.loading"
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert f"{tmp_path / 'profiles.py'}" in done.stderr
    assert "rename" in done.stderr
    assert path.exists()


def test_a_factory_at_hand_can_be_measured_here_and_refused_to_workers():
    """A local function works in this process; a worker cannot import it, and the text says what to do."""

    def make(*, adjoint):
        return jnp.sum, (jnp.ones(3),)

    problem = load_problem(make)
    assert isinstance(problem.make(None).args[0], jax.Array)
    with pytest.raises(AutotuneError, match=r"move .* to a file of its own, my_problem\.py"):
        problem.worker_spec()


def test_a_factory_of_the_running_script_is_refused_to_workers(tmp_path):
    """A script's `__main__` is a different module in every process."""
    text = """
        from autotune.problem.loading import load_problem
        def make(*, adjoint):
            return print, ()
        try:
            load_problem(make).worker_spec()
        except Exception as error:
            print(type(error).__name__, error)
    """
    done = subprocess.run(
        [sys.executable, str(write(tmp_path, text))], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.startswith("AutotuneError make is defined in the running script")
    assert "my_problem.py:make" in done.stdout


def test_a_top_level_factory_of_a_module_can_go_to_workers():
    """What can be imported by name is named so."""
    problem = load_problem(_top_level_factory)
    assert problem.worker_spec() == f"{__name__}:_top_level_factory"


def _top_level_factory(*, adjoint):
    return print, ()


def test_loading_a_problem_does_not_need_jax():
    """Naming a problem wrongly must fail at once, not after seconds of importing."""
    modules = "autotune.problem.loading, autotune.machine.budget, autotune.measuring.runners"
    code = f"import sys, {modules}; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
