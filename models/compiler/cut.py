"""Where a module is cut into a public part and a secret one: the value that leaves the last public part."""

from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from ciphershift.models.compiler import ir


def cut(exported: ExportedProgram, public: str) -> fx.Node | ir.Finding:
    """The result of the part ``public``, a path such as "features.0"; everything that it is computed from is public, too.

    Returns:
        Its node; or what is wrong with cutting there.
    """
    nodes = list(exported.graph.nodes)
    names = {spec.arg.name for spec in exported.graph_signature.input_specs if spec.kind is InputKind.USER_INPUT}
    found = {node for node in nodes if node.name in names}
    for node in nodes:  # in order, each after those that it reads
        if any(source in found for source in node.all_input_nodes):
            found.add(node)
    inside = {node for node in found if _is_within(node, public)}
    if not inside:
        parts = sorted({path for node in found for path in _stack(node) if path})
        return _wrong(public, "is no part that the input passes through", f"name one of {', '.join(parts[:20])}")
    leaving = [node for node in nodes if node in inside and any(user not in inside for user in node.users)]
    if len(leaving) != 1 or not isinstance(leaving[0].meta.get("val"), Tensor):
        return _wrong(
            public,
            f"gives {len(leaving)} results to other parts",
            "cut behind a part that is called once and gives one",
        )
    end: fx.Node = leaving[0]
    public_nodes, todo = {end}, [end]
    while todo:
        for source in todo.pop().all_input_nodes:
            if source in found and source not in public_nodes:
                public_nodes.add(source)
                todo.append(source)
    around = [node for node in public_nodes - {end} if any(user not in public_nodes for user in node.users)]
    if around:
        return _wrong(
            public,
            f"is passed by {len(around)} values that later parts read, too",
            "cut where everything passes through one value, behind the end of a shortcut",
        )
    return end


def _stack(node: fx.Node) -> list[str]:
    return [str(path).split("@")[0] for path, _ in (node.meta.get("nn_module_stack") or {}).values()]


def _is_within(node: fx.Node, public: str) -> bool:
    return public in _stack(node)


def _wrong(public: str, problem: str, instead: str) -> ir.Finding:
    return ir.Finding(place=f"the public part {public}", problem=problem, instead=instead)
