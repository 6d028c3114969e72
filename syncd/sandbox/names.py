"""The words the seeded world is made of: a small Dutch bakery's customers, products and lists."""

from __future__ import annotations

MEN = ("Jan", "Piet", "Kees", "Bram", "Daan", "Sem", "Thijs", "Ruben", "André", "Joël", "Willem", "Hendrik", "Mohamed")
WOMEN = ("Anna", "Sanne", "Lotte", "Femke", "Zoë", "Noor", "Eva", "Marijke", "Truus", "Fatima", "Renée", "Chloë", "Ida")
FAMILIES = (
    ("de", "Vries"),
    ("van den", "Berg"),
    ("", "Jansen"),
    ("", "Bakker"),
    ("van", "Dijk"),
    ("", "Visser"),
    ("de", "Boer"),
    ("van der", "Meer"),
    ("", "Mulder"),
    ("", "Çelik"),
    ("'t", "Hart"),
    ("van", "Leeuwen"),
    ("", "Hendriks"),
    ("ter", "Braak"),
    ("de", "Groot"),
    ("", "Smit"),
    ("van 't", "Hof"),
    ("", "O'Brien"),
    ("op den", "Kamp"),
    ("", "Yılmaz"),
    ("el", "Amrani"),
    ("", "Koning-Peters"),
)
DOMAINS = ("voorbeeld.example", "post.example", "thuis.example", "bedrijf.example", "mail.voorbeeld.example")
STREETS = (
    "Dorpsstraat",
    "Kerkstraat",
    "Molenweg",
    "Stationsplein",
    "Beatrixlaan",
    "Burg. de Raadtsingel",
    "Achter 't Veer",
)
TOWNS = (
    ("Utrecht", "3511"),
    ("'s-Hertogenbosch", "5211"),
    ("Amersfoort", "3811"),
    ("Groningen", "9711"),
    ("Breda", "4811"),
    ("Zwolle", "8011"),
    ("Leiden", "2311"),
)
COMPANIES = ("Koffiehuis De Hoek", "Lunchroom Zuid", "Slagerij & Zn.", "Studio Noord B.V.", "V.O.F. Het Veer")
FUNNEL_STATES = ("", "lead", "prospect", "klant", "fan")
TAGS = ("nieuwsbrief", "klant", "proefles", "vip", "webinar 2024", "België", "heeft vraag", "zakelijk")
GROUPS = ("Nieuwsbrief", "Klanten", "Cursisten brood", "Webinar", "Zakelijke relaties")
LISTS = (
    ("Nieuwsbrief", "mailing", 0),
    ("Welkomstreeks klanten", "campagne", 1),
    ("Cursus zuurdesem", "cursus", 2),
    ("Webinar herinnering", "webinar", 3),
)
# Standard fields: code, name, type, options.
STANDARD_FIELDS: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    ("relation_email", "E-mailadres", "string", ()),
    ("relation_firstName", "Voornaam", "string", ()),
    ("relation_suffix", "Tussenvoegsel", "string", ()),
    ("relation_lastName", "Achternaam", "string", ()),
    ("relation_gender", "Geslacht", "list", ("M", "F", "-")),
    ("relation_funnelState", "Fase", "list", FUNNEL_STATES[1:]),
)
# Free fields: name, label, type, options.
FREE_FIELDS: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    ("favoriet_brood", "Favoriet brood", "string", ()),
    ("wil_proeverij", "Wil naar de proeverij", "boolean", ()),
    ("bezorgdag", "Bezorgdag", "list", ("maandag", "woensdag", "vrijdag")),
    ("klantnummer_kassa", "Klantnummer kassa", "string", ()),
)
# Products: id, name, price without VAT in cents, VAT percentage, ledger, whether it is a subscription.
PRODUCTS: tuple[tuple[int, str, int, int, str, bool], ...] = (
    (7001, "Desembrood", 550, 9, "8000", False),
    (7002, 'Speltbrood "de Molen"', 625, 9, "8000", False),
    (7003, "Cursus zuurdesem", 12950, 21, "8100", False),
    (7004, "Rijsmandje", 1695, 21, "8200", False),
    (7005, "Crème-taart & koffie", 2475, 9, "8000", False),
    (7006, "Broodabonnement week", 1950, 9, "8300", True),
    (7007, "Online lidmaatschap", 995, 21, "8400", True),
)
