#include <espalier/number.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void real_text(double value, char text[static REAL_TEXT_MAX]) {
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, REAL_TEXT_MAX, "%.*g", digits, value);
        if (strtod(text, NULL) == value)
            break;
    }
    if (strpbrk(text, ".en") == NULL) /* neither point nor exponent, nor "inf" or "nan" */
        strncat(text, ".0", REAL_TEXT_MAX - strlen(text) - 1);
}
