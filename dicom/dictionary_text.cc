/* dictionary_text.cc - the data dictionary in words: dictionary_text() of dataset.h. No part of a
 * program that does not ask for it, and the node does not. */
#include "dicom/dataset_impl.h"

#include <dcmtk/dcmdata/dcdict.h>
#include <dcmtk/dcmdata/dcdicent.h>

#include "node/base/buf.h"

#include "dicom/dataset.h"

static const char *word(DcmDictRangeRestriction kind)
{
    return kind == DcmDictRange_Odd ? "Odd" : kind == DcmDictRange_Even ? "Even" : "Unspecified";
}

static void add(struct buf *out, const DcmDictEntry *entry)
{
    const char *creator = entry->getPrivateCreator();
    buf_printf(out, "ENTRY(0x%04X, 0x%04X, %s, 0x%04X, 0x%04X, %s, %s, %d, ", entry->getGroup(),
               entry->getUpperGroup(), word(entry->getGroupRangeRestriction()), entry->getElement(),
               entry->getUpperElement(), word(entry->getElementRangeRestriction()),
               entry->getVR().getVRName(), entry->getVMMin());
    if (entry->getVMMax() == DcmVariableVM)
        buf_puts(out, "DcmVariableVM");
    else
        buf_printf(out, "%d", entry->getVMMax());
    buf_printf(out, ", \"%s\", \"%s\", \"%s\")\n", entry->getTagName(), entry->getStandardVersion(),
               creator ? creator : "");
}

int dictionary_text(struct buf *out, struct err *e)
{
    return protect(e, "reading the data dictionary", [&]() -> int {
        struct unlock {
            ~unlock()
            {
                dcmDataDict.wrunlock();
            }
        };
        DcmDataDictionary &dictionary = dcmDataDict.wrlock();
        unlock at_end;
        if (!dictionary.isDictionaryLoaded())
            return err_set(e, ERR_CONFIG, "DCMTK says that it has no dictionary");
        for (DcmHashDictIterator i = dictionary.normalBegin(); i != dictionary.normalEnd(); ++i)
            add(out, *i);
        for (DcmDictEntryListIterator i = dictionary.repeatingBegin();
             i != dictionary.repeatingEnd(); ++i)
            add(out, *i);
        return buf_error(out) ? err_set(e, buf_error(out), "the data dictionary: no memory") : 0;
    });
}
