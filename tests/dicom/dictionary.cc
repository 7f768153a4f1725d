/*
 * dictionary.cc - DCMTK's data dictionary, entry by entry, so that what dicom/ makes of it can be
 * compared with what DCMTK reads
 *
 *     dicom_dictionary init        as dicom_init() leaves it
 *     dicom_dictionary vendors     as dicom_add_vendors() leaves it
 *     dicom_dictionary default     as DCMTK reads it when nobody interferes
 *     dicom_dictionary text FILE   what DCMTK's parser makes of one file
 *
 * One line for each entry, in the order in which DCMTK looks through them, as
 * scripts/dictionary_table writes it. Exit status 0, or 1 with the reason on standard error. Not
 * part of the node.
 */
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include <dcmtk/config/osconfig.h>
#include <dcmtk/dcmdata/dctk.h>

#include "dicom/dataset.h"
#include "node/base/err.h"

static const char *word(DcmDictRangeRestriction kind)
{
    return kind == DcmDictRange_Odd ? "Odd" : kind == DcmDictRange_Even ? "Even" : "Unspecified";
}

static void print(const DcmDictEntry *entry)
{
    const char *creator = entry->getPrivateCreator();
    printf("ENTRY(0x%04X, 0x%04X, %s, 0x%04X, 0x%04X, %s, %s, %d, ", entry->getGroup(),
           entry->getUpperGroup(), word(entry->getGroupRangeRestriction()), entry->getElement(),
           entry->getUpperElement(), word(entry->getElementRangeRestriction()),
           entry->getVR().getVRName(), entry->getVMMin());
    printf(entry->getVMMax() == DcmVariableVM ? "DcmVariableVM" : "%d", entry->getVMMax());
    printf(", \"%s\", \"%s\", \"%s\")\n", entry->getTagName(), entry->getStandardVersion(),
           creator ? creator : "");
}

static int print_all(DcmDataDictionary &dictionary)
{
    if (!dictionary.isDictionaryLoaded()) {
        fputs("DCMTK says that it has no dictionary\n", stderr);
        return 1;
    }
    for (DcmHashDictIterator i = dictionary.normalBegin(); i != dictionary.normalEnd(); ++i)
        print(*i);
    for (DcmDictEntryListIterator i = dictionary.repeatingBegin(); i != dictionary.repeatingEnd();
         ++i)
        print(*i);
    return 0;
}

static std::string environment(void)
{
    const char *list = getenv(DCM_DICT_ENVIRONMENT_VARIABLE);
    return list && *list ? list : "none";
}

/* Twice, since the second time must change nothing. */
static int fill(int (*by)(struct err *))
{
    struct err e = {};
    const std::string before = environment();
    if (by(&e) != 0 || by(&e) != 0) {
        fprintf(stderr, "%s: %s\n", err_word(e.code), e.text);
        return 1;
    }
    if (environment() != before) {
        fprintf(stderr, "%s was %s and is %s\n", DCM_DICT_ENVIRONMENT_VARIABLE, before.c_str(),
                environment().c_str());
        return 1;
    }
    return 0;
}

int main(int argc, char **argv)
{
    const char *verb = argc > 1 ? argv[1] : "";
    if (strcmp(verb, "text") == 0 && argc == 3) {
        DcmDataDictionary text(OFFalse, OFFalse);
        return text.loadDictionary(argv[2]) ? print_all(text) : 1;
    }
    int rc = strcmp(verb, "init") == 0      ? fill(dicom_init)
             : strcmp(verb, "vendors") == 0 ? fill(dicom_add_vendors)
             : strcmp(verb, "default") == 0 ? 0
                                            : 2;
    if (rc == 0)
        rc = print_all(dcmDataDict.wrlock());
    return rc;
}
