/*
 * dictionary.cc - DCMTK's data dictionary, out of a table in the program
 *
 * DCMTK reads its dictionaries as text when it is first asked for an attribute, which every process
 * would wait for. Its own file of the standard's attributes became a table when this program was
 * built (scripts/dictionary_table), and what DCMTK finds is the same. The vendors' private
 * attributes are read as text still, by who needs them. DCMDICTPATH, where it is
 * set, names all dictionaries there are: nothing is added to those but SyntheticData.
 */
#include <cstdlib>
#include <cstring>
#include <mutex>

#include "dicom/dataset_impl.h"

#include <dcmtk/dcmdata/dcdict.h>
#include <dcmtk/dcmdata/dcdicent.h>

#include "dicom/dataset.h"

/* One entry. Without pointers, which would have to be relocated at each start: the texts of all
 * entries stand behind each other. */
struct row {
    Uint16 group, group_to, element, element_to;
    Sint16 vm_min, vm_max;
    Uint8 vr, group_kind, element_kind;
    Uint8 keyword_bytes, version_bytes, creator_bytes; /* terminators included */
};

static const struct row rows[] = {
#define ENTRY(group, group_to, group_kind, element, element_to, element_kind, vr, vm_min, vm_max,  \
              keyword, version, creator)                                                           \
    {group,                                                                                        \
     group_to,                                                                                     \
     element,                                                                                      \
     element_to,                                                                                   \
     vm_min,                                                                                       \
     vm_max,                                                                                       \
     EVR_##vr,                                                                                     \
     DcmDictRange_##group_kind,                                                                    \
     DcmDictRange_##element_kind,                                                                  \
     sizeof keyword,                                                                               \
     sizeof version,                                                                               \
     sizeof creator},
#include <build/dictionary.inc>
#undef ENTRY
};

static const char texts[] = ""
#define ENTRY(group, group_to, group_kind, element, element_to, element_kind, vr, vm_min, vm_max,  \
              keyword, version, creator)                                                           \
    keyword "\0" version "\0" creator "\0"
#include <build/dictionary.inc>
#undef ENTRY
    ;

/* The dictionary is locked for writing as long as this lives. */
struct locked {
    DcmDataDictionary &dictionary = dcmDataDict.wrlock();
    ~locked()
    {
        dcmDataDict.wrunlock();
    }
};

/* DCMTK finds a list of no files as long as this lives: it reads none and is content. */
struct no_files {
    no_files()
    {
        const char list[] = {ENVIRONMENT_PATH_SEPARATOR, '\0'};
        setenv(DCM_DICT_ENVIRONMENT_VARIABLE, list, 1);
    }
    ~no_files()
    {
        unsetenv(DCM_DICT_ENVIRONMENT_VARIABLE);
    }
};

/* By the user; DCMTK takes an empty list for none, too. */
static bool are_chosen(void)
{
    const char *list = getenv(DCM_DICT_ENVIRONMENT_VARIABLE);
    return list && *list;
}

static void add_rows(DcmDataDictionary &dictionary)
{
    const char *text = texts;
    for (const struct row &r : rows) {
        const char *version = text + r.keyword_bytes, *creator = version + r.version_bytes;
        DcmDictEntry *entry = new DcmDictEntry(
            r.group, r.element, r.group_to, r.element_to, DcmVR((DcmEVR)r.vr), text, r.vm_min,
            r.vm_max, version, OFFalse /* the texts stay */, *creator ? creator : NULL);
        entry->setGroupRangeRestriction((DcmDictRangeRestriction)r.group_kind);
        entry->setElementRangeRestriction((DcmDictRangeRestriction)r.element_kind);
        dictionary.addEntry(entry);
        text = creator + r.creator_bytes;
    }
}

int dictionary_load(struct err *e)
{
    if (are_chosen()) {
        if (!dcmDataDict.isDictionaryLoaded())
            return err_set(e, ERR_CONFIG,
                           "DCMTK's data dictionary is not loaded: what DCMDICTPATH names cannot "
                           "be read; unset it, or set it to the dicom.dic of the package "
                           "libdcmtk17");
    } else {
        no_files none;
        add_rows(locked().dictionary);
    }
    locked held;
    if (!held.dictionary.findEntry(DcmTagKey(0x0008, 0x001C), NULL))
        held.dictionary.addEntry(new DcmDictEntry(0x0008, 0x001C, DcmVR(EVR_CS), "SyntheticData", 1,
                                                  1, "DICOM", OFTrue, NULL));
    return 0;
}

int dicom_add_vendors(struct err *e)
{
    static std::mutex guard;
    static bool done = false;
    int rc = dicom_init(e);
    if (rc != 0)
        return rc;
    return protect(e, "reading the dictionaries of vendors", [&]() -> int {
        std::lock_guard<std::mutex> hold(guard);
        if (done || are_chosen())
            return 0;
        const char separators[] = {ENVIRONMENT_PATH_SEPARATOR, '\0'};
        char list[] = DCM_DICT_DEFAULT_PATH, *rest = NULL;
        locked held;
        strtok_r(list, separators, &rest); /* the standard's is in the table */
        for (char *path; (path = strtok_r(NULL, separators, &rest)) != NULL;) {
            if (!held.dictionary.loadDictionary(path))
                return err_set(e, ERR_CONFIG,
                               "cannot read %s, which says what vendors' private attributes are: "
                               "install the package libdcmtk17, or name another in DCMDICTPATH",
                               path);
        }
        done = true;
        return 0;
    });
}
