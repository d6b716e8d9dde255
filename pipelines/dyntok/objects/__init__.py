"""Object stores through fsspec, for inputs and outputs: what is tried again and for how long, time limits, uploads that
leave nothing half done, and private folders for files on their way.

Knows nothing of videos or of the store's format. Imports `dyntok.urls`, fsspec and the standard library.
"""

from dyntok.objects.faults import DeniedObjectError, Fault, MissingObjectError, ObjectStoreError, fault_of
from dyntok.objects.files import ObjectFile
from dyntok.objects.private import PrivateFolder
from dyntok.objects.remote import ObjectInfo, Remote, is_object_store, object_info
from dyntok.objects.retries import Patience, try_again

__all__ = [
    "DeniedObjectError",
    "Fault",
    "MissingObjectError",
    "ObjectFile",
    "ObjectInfo",
    "ObjectStoreError",
    "Patience",
    "PrivateFolder",
    "Remote",
    "fault_of",
    "is_object_store",
    "object_info",
    "try_again",
]
