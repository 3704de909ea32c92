#!/usr/bin/env bash
# Tells which NICs' drivers are in a binary, and fails if one that every such binary should have is not.
# A driver that is linked in registers itself in a function that the linker keeps; its name is in the
# symbol table (of a binary that is not stripped).
#
#   tests/drivers.sh target/release/sluicegate [all]
set -euo pipefail

binary=${1:?which binary}
wanted=(e1000_igb ena i40e iavf ice igc ixgbe vmxnet3 virtio)
[[ ${2:-} == all ]] && wanted+=(atlantic bnxt cxgbe enic hns3 ionic_pci mlx4 mlx5 qede sfc_efx txgbe)

# PCI drivers by their registration; virtio and NVIDIA's register in functions of other names.
symbols=$(nm --defined-only "$binary")
drivers=$(grep -oE ' t (pciinitfn_net_[a-z0-9_]+|rte_virtio_net_pci_pmd_init|rte_mlx[45]_pmd_init)$' \
    <<<"$symbols" | sed -E 's/^ t //; s/^pciinitfn_net_//; s/^rte_//; s/_(net_pci_)?pmd_init$//' |
    sort -u)
echo "$(wc -l <<<"$drivers") drivers of PCI NICs in $binary:"
paste -sd' ' <<<"$drivers" | fold -s -w 100

missing=()
for driver in "${wanted[@]}"; do
    grep -qx "$driver" <<<"$drivers" || missing+=("$driver")
done
if [[ ${#missing[@]} -gt 0 ]]; then
    echo "missing: ${missing[*]}" >&2
    exit 1
fi
