//! The table's own rules, from the providers' documentation of their types.

use super::Mark;

/// Types, and their attributes with what those are.
pub(super) type BuiltIn = (&'static [&'static str], &'static [(&'static str, Mark)]);

/// Types that are hosts.
pub(super) const IS: &[BuiltIn] = &[
    (
        &["aws_instance", "aws_spot_instance_request"],
        &[
            ("id", Mark::InstanceId),
            ("spot_instance_id", Mark::InstanceId),
            ("public_ip", Mark::PublicAddress),
            ("ipv6_addresses/*", Mark::PublicAddress),
            ("private_ip", Mark::PrivateAddress),
            ("secondary_private_ips/*", Mark::PrivateAddress),
            ("private_dns", Mark::Fqdn),
            ("public_dns", Mark::Fqdn),
            ("tags_all/Name", Mark::Name),
            ("tags/Name", Mark::Name),
        ],
    ),
    (
        &[
            "google_compute_instance",
            "google_compute_instance_from_template",
        ],
        &[
            ("instance_id", Mark::InstanceId),
            (
                "network_interface/*/access_config/*/nat_ip",
                Mark::PublicAddress,
            ),
            ("network_interface/*/network_ip", Mark::PrivateAddress),
            ("hostname", Mark::Fqdn),
            ("name", Mark::Name),
        ],
    ),
    (
        &[
            "azurerm_linux_virtual_machine",
            "azurerm_windows_virtual_machine",
            "azurerm_virtual_machine",
        ],
        &[
            ("virtual_machine_id", Mark::Uuid),
            ("public_ip_addresses/*", Mark::PublicAddress),
            ("private_ip_addresses/*", Mark::PrivateAddress),
            ("computer_name", Mark::Name),
            ("name", Mark::Name),
        ],
    ),
    (
        &["digitalocean_droplet"],
        &[
            ("id", Mark::InstanceId),
            ("id", Mark::Serial),
            ("ipv4_address", Mark::PublicAddress),
            ("ipv6_address", Mark::PublicAddress),
            ("ipv4_address_private", Mark::PrivateAddress),
            ("name", Mark::Name),
        ],
    ),
    (
        &["hcloud_server"],
        &[
            ("id", Mark::InstanceId),
            ("id", Mark::Serial),
            ("ipv4_address", Mark::PublicAddress),
            ("ipv6_address", Mark::PublicAddress),
            ("network/*/ip", Mark::PrivateAddress),
            ("name", Mark::Name),
        ],
    ),
    (
        &["vultr_instance", "vultr_bare_metal_server"],
        &[
            ("id", Mark::InstanceId),
            ("id", Mark::Serial),
            ("main_ip", Mark::PublicAddress),
            ("v6_main_ip", Mark::PublicAddress),
            ("internal_ip", Mark::PrivateAddress),
            ("hostname", Mark::Name),
        ],
    ),
    (
        &["openstack_compute_instance_v2"],
        &[
            ("id", Mark::InstanceId),
            ("id", Mark::Uuid),
            ("network/*/mac", Mark::Mac),
            ("access_ip_v4", Mark::PrivateAddress),
            ("access_ip_v6", Mark::PublicAddress),
            ("network/*/fixed_ip_v4", Mark::PrivateAddress),
            ("name", Mark::Name),
        ],
    ),
    (
        &["vsphere_virtual_machine"],
        &[
            ("uuid", Mark::Uuid),
            ("id", Mark::Uuid),
            ("network_interface/*/mac_address", Mark::Mac),
            ("default_ip_address", Mark::PrivateAddress),
            ("guest_ip_addresses/*", Mark::PrivateAddress),
            ("name", Mark::Name),
        ],
    ),
    (
        &["libvirt_domain"],
        &[
            ("id", Mark::Uuid),
            ("network_interface/*/mac", Mark::Mac),
            ("network_interface/*/addresses/*", Mark::PrivateAddress),
            ("name", Mark::Name),
        ],
    ),
    (
        &["proxmox_vm_qemu", "proxmox_lxc"],
        &[
            ("smbios/*/uuid", Mark::Uuid),
            ("network/*/macaddr", Mark::Mac),
            ("default_ipv4_address", Mark::PrivateAddress),
            ("ssh_host", Mark::PrivateAddress),
            ("name", Mark::Name),
            ("hostname", Mark::Name),
        ],
    ),
    (
        &["proxmox_virtual_environment_vm"],
        &[
            ("mac_addresses/*", Mark::Mac),
            ("ipv4_addresses/*/*", Mark::PrivateAddress),
            ("ipv6_addresses/*/*", Mark::PrivateAddress),
            ("name", Mark::Name),
        ],
    ),
    (
        &["linode_instance"],
        &[
            ("id", Mark::InstanceId),
            ("ip_address", Mark::PublicAddress),
            ("private_ip_address", Mark::PrivateAddress),
            ("label", Mark::Name),
        ],
    ),
    (
        &["scaleway_instance_server"],
        &[
            ("id", Mark::InstanceId),
            ("public_ip", Mark::PublicAddress),
            ("public_ips/*/address", Mark::PublicAddress),
            ("private_ip", Mark::PrivateAddress),
            ("private_ips/*/address", Mark::PrivateAddress),
            ("name", Mark::Name),
        ],
    ),
    (
        &["oci_core_instance"],
        &[
            ("id", Mark::InstanceId),
            ("public_ip", Mark::PublicAddress),
            ("private_ip", Mark::PrivateAddress),
            ("hostname_label", Mark::Name),
            ("display_name", Mark::Name),
        ],
    ),
    (
        &["yandex_compute_instance"],
        &[
            ("id", Mark::InstanceId),
            ("network_interface/*/nat_ip_address", Mark::PublicAddress),
            ("network_interface/*/ip_address", Mark::PrivateAddress),
            ("fqdn", Mark::Fqdn),
            ("name", Mark::Name),
        ],
    ),
];

/// Types that are attached to hosts, or lead to them.
pub(super) const AFFECTS: &[BuiltIn] = &[
    (
        &[
            "aws_volume_attachment",
            "aws_network_interface_attachment",
            "aws_network_interface_sg_attachment",
        ],
        &[("instance_id", Mark::InstanceId)],
    ),
    (
        &["aws_eip", "aws_eip_association"],
        &[
            ("instance", Mark::InstanceId),
            ("instance_id", Mark::InstanceId),
            ("public_ip", Mark::PublicAddress),
        ],
    ),
    (
        &["aws_lb_target_group_attachment", "aws_elb_attachment"],
        &[
            ("target_id", Mark::InstanceId),
            ("target_id", Mark::PrivateAddress),
            ("instance", Mark::InstanceId),
        ],
    ),
    (
        &[
            "aws_route53_record",
            "azurerm_dns_a_record",
            "google_dns_record_set",
        ],
        &[
            ("records/*", Mark::PublicAddress),
            ("rrdatas/*", Mark::PublicAddress),
        ],
    ),
    (
        &["cloudflare_record", "cloudflare_dns_record"],
        &[
            ("content", Mark::PublicAddress),
            ("value", Mark::PublicAddress),
        ],
    ),
    (
        &["digitalocean_volume_attachment", "digitalocean_reserved_ip"],
        &[("droplet_id", Mark::InstanceId)],
    ),
    (
        &["digitalocean_firewall"],
        &[("droplet_ids/*", Mark::InstanceId)],
    ),
    (&["digitalocean_record"], &[("value", Mark::PublicAddress)]),
    (
        &[
            "hcloud_volume",
            "hcloud_volume_attachment",
            "hcloud_floating_ip",
            "hcloud_floating_ip_assignment",
            "hcloud_server_network",
            "hcloud_rdns",
        ],
        &[("server_id", Mark::InstanceId)],
    ),
    (
        &[
            "openstack_compute_volume_attach_v2",
            "openstack_compute_floatingip_associate_v2",
            "openstack_compute_interface_attach_v2",
        ],
        &[("instance_id", Mark::InstanceId)],
    ),
];
