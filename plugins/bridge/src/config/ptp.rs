//! `"mode": "ptp"`: which keys of bridge mode apply to a link without a bridge.

use cni_plugin::{Code, Error};

use super::{Gateway, Raw, invalid};
use crate::vxlan;

/// The host end is the gateway always, and the way to everywhere unless `isDefaultGateway` is
/// false: then the IPAM plugin's routes alone lead through it.
pub(super) fn gateway(raw: &Raw) -> Gateway {
    Gateway {
        enabled: true,
        default_route: raw.isdefaultgateway.unwrap_or(true),
        force_address: false,
    }
}

/// # Errors
/// Code 2 naming a key that needs a bridge, 7 if there is no IPAM plugin. `isGateway` and
/// `hairpinMode` are not errors: a routed link is a gateway, and sends back where a packet came
/// from.
pub(super) fn reject(raw: &Raw) -> Result<(), Error> {
    let vxlan = raw.vxlan.as_ref().is_some_and(|vxlan| *vxlan != vxlan::RawVxlan::default());
    let of_a_bridge = [
        ("bridge", !raw.bridge.is_empty()),
        ("forceAddress", raw.forceaddress),
        ("macspoofchk", raw.macspoofchk),
        ("portIsolation", raw.portisolation),
        ("preserveDefaultVlan", raw.preservedefaultvlan),
        ("promiscMode", raw.promiscmode),
        ("vlan", raw.vlan != 0),
        ("vlanTrunk", !raw.vlantrunk.is_empty()),
        ("vxlan", vxlan),
    ];
    if let Some((key, _)) = of_a_bridge.into_iter().find(|(_, given)| *given) {
        return Err(Error::new(
            Code::UnsupportedField,
            format!(
                "{key} needs a bridge and mode is \"ptp\"; remove {key} or use mode \"bridge\""
            ),
        ));
    }
    if raw.ipam.r#type.is_empty() {
        return Err(invalid(
            "mode \"ptp\" needs addresses and ipam.type is not set; set ipam or use mode \"bridge\"",
        ));
    }
    Ok(())
}
