"""How the lenses of well-known publications were found, by the identifier that catalogues quote.

Every entry was checked against the title and, where it does not say it, the abstract of the publication: in the list of
sources of the lens catalogue itself, the arXiv and CDS records, or bibliographies that quote identifier and title. A
reference that is not here gives the method "unknown". Left out on purpose: publications that mix methods (1704.01585
uses images and spectra, and does not say per lens), lists made from other lists, and those that could not be checked
(2002.01611, 1809.07341, 1911.02587, 1801.07282, 1509.07649, 1805.08640, 2008.01361, 2012hst..prop12833M).
"""

from __future__ import annotations

from pipeline.contracts.anchors import CLUSTER_SURVEY

_METHODS = {
    # Searches in ground-based survey images, by eye, algorithm or network.
    "imaging": (
        "1906.00970",  # Huang 2020, DECaLS
        "2005.04730",  # Huang 2021, Legacy Surveys DR8
        "2206.02764",  # Storfer 2022, Legacy Surveys DR9
        "2110.00023",  # Stein 2021, Legacy Surveys
        "2210.10802",  # Zaborowski 2022, DELVE
        "2109.00014",  # Rojas 2021, DES
        "1811.03786",  # Jacobs 2018, DES
        "1538-4365/ab26b6",  # Jacobs 2019, DES
        "2110.02418",  # O'Donnell 2021, DES
        "2205.05307",  # Tran 2022, AGEL: spectra of lenses found in DES and DECaLS images
        "1812.03168",  # Petrillo 2018, KiDS
        "2110.01905",  # Li 2021, KiDS
        "2004.13048",  # Canameras 2020, Pan-STARRS
        "2107.07829",  # Canameras 2021, HSC
        "2201.11135",  # Shu 2022, HSC
        "2004.00634",  # Sonnenfeld 2020, HSC
        "2203.12805",  # Wong 2022, HSC
        "2312.07333",  # Jaelani 2023, HSC
        "2110.11972",  # Savary 2021, CFIS
        "0004-637X/785/2/144",  # Gavazzi 2014, CFHTLS
        "1109.1821",  # More 2011, CFHTLS
        "1307.4764",  # Sonnenfeld 2013, CFHTLS
        "0610362",  # Cabanac 2006, CFHTLS
    ),
    # Searches in images of space telescopes, where arcs are visible that a ground-based survey does not resolve.
    "space_imaging": (
        "1538-4357/aaae6a",  # Pourrahmani 2018, HST COSMOS
        "1206.3412",  # Pawase 2012, HST archive
    ),
    # A second redshift in the spectrum of the lens.
    "spectroscopy": (
        "0805.1931",  # Bolton 2008, SLACS
        "0911.2471",  # Auger 2009, SLACS
        "2019yCat..18510048S",  # Shu 2017, S4TM
        "1112.3683",  # Brownstein 2011, BELLS
        "1604.01842",  # Shu 2016, BELLS GALLERY
        "1104.5663",  # Treu 2011, SWELLS
        "1803.03604",  # Talbot 2018, MaNGA
        "2007.09006",  # Talbot 2020, eBOSS
        "2206.09902",  # Talbot 2022, MaNGA
        "1503.04813",  # Holwerda 2015, GAMA blended spectra: 104 lens candidates among 280 pairs
    ),
    # Bright sources of the far infrared.
    "submillimetre": ("1611.03922",),
    # Lists made from other lists; they say nothing about the discovery.
    "compilation": ("lensedquasars",),
    # Catalogues of galaxy clusters, optical and X-ray: possible lenses, not found ones.
    CLUSTER_SURVEY: (
        "10.1086/423038",  # Lopes 2004, NoSOCS
        "astro-ph/0106055",  # Gonzalez 2001, LCDCS
        "10.1086/191426",  # Gioia 1990, EMSS
        "astro-ph/0405546",  # Boehringer 2004, REFLEX
        "astro-ph/0003219",  # Boehringer 2000, NORAS
        "0411075",  # Gladders 2005, RCS
        "astro-ph/9812394",  # Ebeling 1998, BCS
        "astro-ph/0003191",  # Ebeling 2000, BCS
        "astro-ph/0609815",  # Olsen 2006, CFHTLS clusters
        "astro-ph/0403354",  # Popesso 2004, RASS-SDSS
        "1002.2226",  # Menanteau 2010, Southern Cosmology Survey
        "astro-ph/0310009",  # Cypriano 2004, weak lensing of Abell clusters
        "astro-ph/0608624",  # van Breukelen 2006, UKIDSS UDS clusters
    ),
}
METHOD_OF_REFERENCE = {reference: method for method, references in _METHODS.items() for reference in references}
