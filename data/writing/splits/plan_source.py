"""The plan of writing a source: the split and the shard of every record."""

from array import array
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tenfold.data.format.manifest import LABEL
from tenfold.data.format.row_file import IndexFile
from tenfold.data.planning.layout import LayoutPolicy
from tenfold.data.planning.splits.deal_splits import deal_splits
from tenfold.data.planning.splits.split_rule import SplitRule
from tenfold.data.planning.write_plan import WritePlan, plan_write
from tenfold.data.sources.base import Source
from tenfold.data.transforms.chain import Chain
from tenfold.data.transforms.estimate import estimate_sizes
from tenfold.data.writing.splits.feature_values import feature_values


def plan_source(
    source: Source,
    policy: LayoutPolicy,
    rule: SplitRule,
    *,
    chain: Chain | None = None,
    shuffle_seed: int = 0,
    label_feature: str = "",
) -> WritePlan:
    """Return the plan of writing `source`.

    Reads the features that decide over the splits, and the sizes of a sample if there are
    transforms.

    Args:
      source: the source.
      policy: the bounds of each split's layout.
      rule: how the examples become splits.
      chain: the transforms; None for none.
      shuffle_seed: the seed of the write.
      label_feature: the name by which the user calls the feature ``label``; "" for no other.

    Raises:
      UserError: the rule does not fit the source, or a split has too few examples.
      JobError: every sampled record is broken.
    """
    rule = _with_stored_names(rule, label_feature)
    values = {name: feature_values(source, name) for name in rule.features}
    dealt = deal_splits(
        source.stats.num_examples,
        rule,
        own=getattr(source, "splits", ()),
        values=values,
        seed=shuffle_seed,
        names={LABEL: source.stats.label_names},
    )
    names = [split.name for split in dealt.splits]
    estimates = estimate_sizes(source, chain or Chain(), names, seed=shuffle_seed)
    return plan_write(dealt, policy, shuffle_seed=shuffle_seed, estimates=estimates)


def _with_stored_names(rule: SplitRule, label_feature: str) -> SplitRule:
    """Return the rule with ``label`` in place of the user's name of that feature."""
    if not label_feature:
        return rule
    names = {label_feature: LABEL}
    return replace(
        rule,
        feature=names.get(rule.feature, rule.feature),
        by=names.get(rule.by, rule.by),
        stratify=names.get(rule.stratify, rule.stratify),
    )


def pools_in_files(plan: WritePlan, scratch: Path) -> WritePlan:
    """Return the plan with listed pools in files, which all processes of the machine map.

    Otherwise each writing process would get, and keep, 8 bytes for every record.
    """

    def in_file(index: int, pool: Sequence[int]) -> Sequence[int]:
        if not isinstance(pool, array):
            return pool
        return IndexFile.write(scratch / f"split-{index}.pool", pool)

    return plan.with_pools(in_file)
