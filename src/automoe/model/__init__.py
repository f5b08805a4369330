"""The one Transformer: attention, experts, and the rule by which sub-networks share weights."""
