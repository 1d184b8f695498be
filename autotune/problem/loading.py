"""Load the user's problem, `FILE.py:factory` or `package.module:factory`, and call its factory.

Importing this module loads no jax; loading a problem does, since the user's file will.
"""

import ast
import dataclasses
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

# Ours are imported before any folder of the user's is searched, so theirs can never take our place; what is left to
# do is to name a file of theirs that ours hides from them.
import adjoint as _adjoint  # noqa: F401  (imported for its place in sys.modules)
from autotune.errors import AutotuneError, from_user
from autotune.problem.sources import sources_now
from autotune.shadowing import OUR_NAMES, OUR_ROOT
from profiles import (
    RecordError,
    Scalar,
    plain_value,
    read_values,
)

_SWEPT = ("adjoint", "horizon", "tolerance")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What a factory returned: `fn(*args)` is the call to measure; `abstract` when any leaf has a shape and no data."""

    fn: Callable[..., Any]
    args: tuple[Any, ...]
    abstract: bool


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A loaded problem: its factory, and what the factory takes.

    `spec` is what a worker process loads it by; None where there is none, and then `refusal` says why. `path` is the
    file that defines the factory, where there is one. `search_path` are the folders that a worker adds to its own.
    `loaded` are the texts of that file and its neighbours as they were loaded, by whole path.
    """

    name: str
    factory: Callable[..., Any]
    parameters: tuple[str, ...]
    required: tuple[str, ...]
    takes_any: bool
    spec: str | None = None
    refusal: str = ""
    path: str | None = None
    set_values: Mapping[str, Scalar] = dataclasses.field(default_factory=dict)
    search_path: tuple[str, ...] = ()
    loaded: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def takes(self, parameter: str) -> bool:
        """Return whether the factory takes a parameter of this name."""
        return self.takes_any or parameter in self.parameters

    def with_set(self, values: Mapping[str, Any]) -> "Problem":
        """Return the same problem with these `--set` values in the place of its own.

        Raises:
            AutotuneError: the factory takes no parameter of such a name.
        """
        for key in values:
            if key in _SWEPT:
                raise AutotuneError(f"--set {key}=… is not for `{key}`, which ckpt-tune gives itself; use --{key}")
            if not self.takes(key):
                raise AutotuneError(f"--set {key}=…: {self.name} takes no parameter `{key}` ({self._takes_text()})")
        try:
            return dataclasses.replace(self, set_values=MappingProxyType(read_values(values)))
        except RecordError as error:
            raise AutotuneError(
                f"{error}; it keys what is measured, so it must be one that can be written down"
            ) from error

    def worker_spec(self) -> str:
        """Return `spec`.

        Raises:
            AutotuneError: no other process can load this factory; the text says how to move it to a file.
        """
        if self.spec is None:
            raise AutotuneError(self.refusal)
        return self.spec

    def make(
        self,
        adjoint: Any,
        horizon: int | float | None = None,
        tolerance: float | None = None,
        devices: tuple[Any, ...] = (),
        shapes_only: bool = False,
    ) -> Call:
        """Call the factory with what it takes of these and with the `--set` values.

        Args:
            adjoint: handed on as `adjoint=`.
            horizon: handed on as `horizon=` when not None.
            tolerance: handed on as `tolerance=` when not None.
            devices: handed on as `devices=` when there are any: what a call is to be sharded over.
            shapes_only: trace the factory and compute nothing, so that its arrays have shapes and no data. What it
                closes over is lost then, which shows when the function is traced.

        Returns:
            The function to measure and its arguments.

        Raises:
            AutotuneError: the factory does not take what it is given, lacks what it needs, raised, or returned
            something
                else than `(fn, args)`.
        """
        given: dict[str, Any] = {"adjoint": adjoint}
        for parameter, value in (("horizon", horizon), ("tolerance", tolerance)):
            if value is None:
                continue
            if not self.takes(parameter):
                raise AutotuneError(
                    f"{self.name} was to be made at {parameter} {value!r}, "
                    f"but takes no parameter `{parameter}` ({self._takes_text()}); leave --{parameter} out, "
                    "or add the parameter to the factory"
                )
            given[parameter] = value
        if devices:
            if not self.takes("devices"):
                raise AutotuneError(
                    f"{self.name} was to be made for {len(devices)} devices, "
                    f"but takes no parameter `devices` ({self._takes_text()}); add devices=None, "
                    "and return arguments as jax.ShapeDtypeStruct with a sharding over them"
                )
            given["devices"] = devices
        given |= {key: plain_value(value) for key, value in self.set_values.items()}
        missing = [parameter for parameter in self.required if parameter not in given]
        if missing:
            options = " ".join(f"--{p} VALUE" if p in _SWEPT else f"--set {p}=VALUE" for p in missing)
            raise AutotuneError(
                f"{self.name} needs {', '.join(f'`{p}`' for p in missing)}, which was not given; add {options}, "
                "or give the parameter a default"
            )
        try:
            made = _shapes_of(self.factory, given) if shapes_only else self.factory(**given)
        except Exception as error:
            raise from_user(f"{self.name} raised", error) from error
        return _checked(self.name, made)

    def _takes_text(self) -> str:
        return "it takes " + (", ".join(self.parameters) or "nothing")


def load_problem(spec: str | Callable[..., Any], *, set_values: Mapping[str, Any] | None = None) -> Problem:
    """Load a problem by the command line's name for it, or wrap a factory that is already at hand.

    Args:
        spec: `FILE.py:factory`, `package.module:factory`, or a factory function.
        set_values: what `--set` gave; handed to the factory by name.

    Returns:
        The problem; its factory has not been called yet.

    Raises:
        AutotuneError: no such file, module or factory, or the file raised; the text says which and what to do.
    """
    set_values = dict(set_values or {})
    if callable(spec):
        return _from_callable(spec, set_values)
    place, factory_name = _split(spec)
    if place.endswith(".py"):
        path = Path(place).expanduser()
        module, text = _load_file(path, spec)
        stem, search_path = path.stem, (str(path.resolve().parent),)
        spec = f"{path.resolve()}:{factory_name}"
    else:
        search_path, text = (os.getcwd(),), None
        module = _load_module(place, spec, search_path)
        stem = place.rpartition(".")[2]
    factory = getattr(module, factory_name, None)
    if place == "__main__":
        raise AutotuneError(
            f"'{spec}' lies in a script or a notebook that runs elsewhere, which no worker process can import; "
            f"move {factory_name} and what it needs to a file of its own, and name it FILE.py:{factory_name}"
        )
    if not callable(factory):
        offers = ", ".join(_offers(module)) or "no function"
        found = "has no" if factory is None else f"has a {type(factory).__name__}, not a function, under"
        raise AutotuneError(f"{place} {found} `{factory_name}`; it offers: {offers}")
    return _problem(
        factory, f"{stem}:{factory_name}", set_values, spec=spec, path=module.__file__, search_path=search_path,
        loaded=_loaded(module.__file__, text),
    )  # fmt: skip


def _loaded(path: str | None, text: str | None) -> dict[str, str]:
    """Keep the sources of a module that was just loaded; `text` is its own where it is known for certain."""
    if path is None:
        return {}
    return sources_now(Path(path)) | ({} if text is None else {str(Path(path).resolve()): text})


def _split(spec: str) -> tuple[str, str]:
    place, colon, factory = spec.rpartition(":")
    if colon and factory and "/" not in factory and "\\" not in factory:
        return place, factory
    path = Path(spec)
    if path.suffix == ".py" and path.is_file():
        found = _functions_in(path)
        offers = f"; it offers: {', '.join(found)}" if found else ""
        raise AutotuneError(f"'{spec}' names no factory; write {spec}:{found[0] if found else 'make'}{offers}")
    raise AutotuneError(f"'{spec}' is not a problem; write FILE.py:factory or package.module:factory")


def _functions_in(path: Path) -> list[str]:
    """List the public top-level functions of a file without running it, those that take `adjoint` first."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return []
    functions = [n for n in tree.body if isinstance(n, ast.FunctionDef) and not n.name.startswith("_")]
    takes = {f.name: "adjoint" in [a.arg for a in (*f.args.args, *f.args.kwonlyargs)] for f in functions}
    return sorted(takes, key=lambda name: not takes[name])


def _offers(module: ModuleType) -> list[str]:
    """List the functions that a loaded module defines itself, those that take `adjoint` first."""
    takes = {}
    for name, value in vars(module).items():
        if inspect.isfunction(value) and not name.startswith("_") and value.__module__ == module.__name__:
            takes[name] = "adjoint" in inspect.signature(value).parameters
    return sorted(takes, key=lambda name: not takes[name])


def _check_not_shadowing(path: Path) -> None:
    """Refuse a file that imports a neighbour of its own whose name is one of our packages'."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError, OSError, RecursionError, MemoryError):
        return  # running the file will say so, with its line
    wanted = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            wanted |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            wanted.add(node.module.partition(".")[0])
    for name in OUR_NAMES:
        if name not in wanted:
            continue
        for neighbour in (path.resolve().parent / f"{name}.py", path.resolve().parent / name):
            ours = neighbour.parent == Path(OUR_ROOT)
            if not ours and (neighbour.is_file() or any(neighbour.glob("*.py"))):
                raise AutotuneError(
                    f"{path} imports `{name}`, and {neighbour} has the name of a package of ckpt-tune, "
                    "so which one is meant is unclear; rename yours"
                )


def _load_file(path: Path, spec: str) -> tuple[ModuleType, str]:
    """Load a file as a module; returns it with the very text that was run, which no cache of bytecode stands for."""
    if not _is_file(path):
        found = "is a folder" if path.is_dir() else "does not exist"
        neighbours = sorted(p.name for p in path.parent.glob("*.py"))[:8] if path.parent.is_dir() else []
        there = f"; {path.parent} holds {', '.join(neighbours)}" if neighbours else ""
        raise AutotuneError(f"cannot load '{spec}': {path} {found}{there}")
    _check_not_shadowing(path)
    # Under its own stem, so that dataclasses and pickling work as in a plain import; another name where that is taken.
    name = path.stem
    if name in sys.stdlib_module_names or name in sys.modules or not name.isidentifier():
        name = f"_ckpt_tune_problem_{name}"
    module_spec = importlib.util.spec_from_file_location(name, path.resolve())
    if module_spec is None or module_spec.loader is None:
        raise AutotuneError(f"cannot load '{spec}': {path} is not a Python file")
    module = importlib.util.module_from_spec(module_spec)
    _extend_search_path((str(path.resolve().parent),))
    try:
        source = path.read_bytes()
    except OSError as error:
        raise AutotuneError(f"cannot load '{spec}': {path} cannot be read: {error.strerror or error}") from error
    sys.modules[name] = module
    try:
        exec(compile(source, str(path.resolve()), "exec", dont_inherit=True), module.__dict__)
        return module, importlib.util.decode_source(source)
    except (Exception, SystemExit) as error:
        sys.modules.pop(name, None)
        raise from_user(f"{path} raised while it was imported", error) from error


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a folder that may not be looked into; a name that no file can have
        return False


def _load_module(name: str, spec: str, search_path: tuple[str, ...]) -> ModuleType:
    _extend_search_path(search_path)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name == missing or name.startswith(missing + "."):
            raise AutotuneError(
                f"cannot load '{spec}': there is no module {missing!r} here; for a file write FILE.py:factory"
            ) from error
        raise from_user(f"{name} raised while it was imported", error) from error
    except (Exception, SystemExit) as error:
        raise from_user(f"{name} raised while it was imported", error) from error


def _extend_search_path(folders: tuple[str, ...]) -> None:
    # At the end: a user's file never hides an installed package, nor one of ours.
    sys.path.extend(folder for folder in folders if folder not in sys.path)


def _from_callable(factory: Callable[..., Any], set_values: Mapping[str, Scalar]) -> Problem:
    name = getattr(factory, "__qualname__", type(factory).__name__)
    module_name = getattr(factory, "__module__", "") or ""
    module = sys.modules.get(module_name)
    path = getattr(module, "__file__", None)
    stem = Path(path).stem if path else module_name.rpartition(".")[2]
    move = (
        f"move {name} and what it needs to a file of its own, my_problem.py, "
        f"and name it 'my_problem.py:{name.rpartition('.')[2]}'"
    )
    spec, refusal = None, ""
    if module_name == "__main__" or path is None:
        where = "a notebook or an interactive session" if path is None else f"the running script {path}"
        refusal = f"{name} is defined in {where}, which no worker process can import; {move}"
    elif getattr(module, name, None) is not factory:
        refusal = f"{name} is not a top-level function of {path}, so no worker process can find it; {move}"
    else:
        spec = f"{module_name}:{name}"
    return _problem(
        factory, f"{stem}:{name}", set_values, spec=spec, path=path, search_path=tuple(p for p in sys.path if p),
        refusal=refusal,
    )  # fmt: skip


def _problem(factory: Callable[..., Any], name: str, set_values: Mapping[str, Scalar], **where: Any) -> Problem:
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError) as error:
        raise AutotuneError(f"{name} does not show what it takes: {error}; write it as a plain function") from error
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    by_name = {
        n: p for n, p in parameters.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL, p.POSITIONAL_ONLY)
    }
    if "adjoint" not in by_name and not takes_any:
        takes = ", ".join(parameters) or "nothing"
        raise AutotuneError(
            f"{name} takes no parameter `adjoint` (it takes {takes}); add it, "
            "and hand it to diffrax.diffeqsolve(adjoint=adjoint)"
        )
    positional_only = [n for n, p in parameters.items() if p.kind is p.POSITIONAL_ONLY]
    if positional_only:
        raise AutotuneError(f"{name} takes {', '.join(positional_only)} by position only; take them by name")
    return Problem(
        name=name, factory=factory, parameters=tuple(by_name), takes_any=takes_any,
        required=tuple(n for n, p in by_name.items() if p.default is p.empty and n != "adjoint"), **where,
    ).with_set(set_values)  # fmt: skip


def _shapes_of(factory: Callable[..., Any], given: Mapping[str, Any]) -> Any:
    """Call a factory as it is traced: its arrays become shapes, all else stays as it is."""
    import equinox as eqx

    return eqx.filter_eval_shape(lambda: factory(**given))


def _checked(name: str, made: Any) -> Call:
    want = f"{name} must return (fn, args), a function and the tuple of its arguments"
    if not isinstance(made, tuple | list) or len(made) != 2:
        found = f"{type(made).__name__} of {len(made)}" if isinstance(made, tuple | list) else type(made).__name__
        raise AutotuneError(f"{want}; it returned a {found}")
    fn, args = made
    if not callable(fn):
        raise AutotuneError(f"{want}; its first item is a {type(fn).__name__}, which cannot be called")
    if not isinstance(args, tuple | list):
        raise AutotuneError(f"{want}; its second item is a {type(args).__name__}; for one argument write (x,)")
    import jax  # here, so that naming and checking a problem loads no jax

    abstract = any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(tuple(args)))
    return Call(fn=fn, args=tuple(args), abstract=abstract)
