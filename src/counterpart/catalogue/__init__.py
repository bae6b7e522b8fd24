"""Whatever has a name that a user may write, declared once: attacks, masks, maps, methods, data, networks, protocols.

Choices and ranges of settings, their help, hints, names in tables, and ``counterpart list`` are read from here. To add
something, write its code and a row. The catalogue imports nothing heavy: the code of a row is imported when
it is used.
"""

from .attacks import ATTACKS as ATTACKS
from .attacks import EVERY_NORM as EVERY_NORM
from .attacks import SUITES as SUITES
from .attacks import AttackFacts as AttackFacts
from .data import DATA_SETS as DATA_SETS
from .data import DataFacts as DataFacts
from .entries import Entry as Entry
from .entries import Option as Option
from .entries import load_code as load_code
from .export_formats import EXPORT_FORMATS as EXPORT_FORMATS
from .export_formats import export_format as export_format
from .find import KINDS as KINDS
from .find import OBJECT as OBJECT
from .find import comes_from_outside as comes_from_outside
from .find import find as find
from .find import is_users_code as is_users_code
from .find import known_names as known_names
from .find import refuse_object as refuse_object
from .find import sentences as sentences
from .find import stated_facts as stated_facts
from .masks import CONTROLS as CONTROLS
from .masks import MAPS as MAPS
from .masks import MASK_RULES as MASK_RULES
from .masks import MaskFacts as MaskFacts
from .methods import METHODS as METHODS
from .models import MODELS as MODELS
from .models import ModelFacts as ModelFacts
from .protocols import MISSING_PROTOCOLS as MISSING_PROTOCOLS
from .protocols import PREPARATIONS as PREPARATIONS
from .protocols import PROTOCOLS as PROTOCOLS
from .protocols import ProtocolFacts as ProtocolFacts
from .published import PublishedModel as PublishedModel
from .published import published_models as published_models
from .published import rows_named as rows_named
from .user_code import describe_source as describe_source
from .user_code import load_users_object as load_users_object
from .user_code import refuse_signature as refuse_signature
from .user_code import source_hash as source_hash
