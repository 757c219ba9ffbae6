//! What people look for in a kernel tree: rare, medium and frequent; strings and expressions.

/// A pattern with the options ripgrep gets for it.
pub struct Case {
    /// The pattern.
    pub text: &'static str,
    /// `-F`: a literal.
    pub literal: bool,
    /// `-i`.
    pub insensitive: bool,
    /// `-w`.
    pub word: bool,
}

const fn literal(text: &'static str) -> Case {
    Case { text, literal: true, insensitive: false, word: false }
}

const fn regex(text: &'static str) -> Case {
    Case { text, literal: false, insensitive: false, word: false }
}

const fn insensitive(text: &'static str) -> Case {
    Case { text, literal: true, insensitive: true, word: false }
}

const fn word(text: &'static str) -> Case {
    Case { text, literal: true, insensitive: false, word: true }
}

/// The fixed list.
pub const CASES: [Case; 40] = [
    literal("tcp_v4_do_rcv"),
    literal("netif_receive_skb"),
    literal("list_for_each_entry_rcu"),
    literal("PCI_VENDOR_ID_INTEL"),
    literal("copy_from_user"),
    literal("regmap_update_bits"),
    literal("file_operations"),
    literal("struct file_operations"),
    literal("kmalloc_array"),
    literal("usb_submit_urb"),
    literal("spin_lock_irqsave"),
    literal("container_of"),
    literal("devm_kzalloc"),
    literal("of_match_table"),
    literal("EXPORT_SYMBOL_GPL"),
    literal("return -EINVAL;"),
    literal("ENOMEM"),
    literal("printk"),
    literal("TODO"),
    literal("out of memory"),
    literal("Copyright (C) 2012"),
    literal("Linus Torvalds"),
    literal("no such string in any tree"),
    insensitive("deadlock"),
    insensitive("use after free"),
    insensitive("zswap"),
    insensitive("linus torvalds"),
    word("schedule"),
    word("mmap"),
    word("nr_pages"),
    regex(r"kmalloc\w*\("),
    regex(r"static (inline )?int tcp_\w+\("),
    regex(r"(read|write)_lock_irq"),
    regex(r"^#define\s+CONFIG_\w+"),
    regex(r"mutex_(un)?lock\(&\w+->"),
    regex(r"0x[0-9a-f]{12}\b"),
    regex(r"EXPORT_SYMBOL(_GPL)?\(tcp_"),
    regex(r"\bu64 \w+ = 0xdeadbeef"),
    regex(r"if \(!\w+\)\s+goto err_\w+;"),
    regex(r"(?i)\bfix\s?me\b"),
];
